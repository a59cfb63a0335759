"""A queue as a worker listens to it: how many messages the server may send ahead, and when it may not.

The server sends messages unasked, as many as the prefetch count allows. A worker asks for as many as it has room for;
so the prefetch count is what was last asked for, and a worker that does not ask for a while is sent nothing: others are
free to take it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import commands

from camora_amqp.frames import Deliver
from camora_amqp.wire import Channel

__all__ = ["Subscription"]

_MOST = 65_535


class Subscription:
    """One queue on one channel. Its methods are called one after the other, in the channel's loop."""

    def __init__(
        self, channel: Channel, queue: str, name: str, *, most: int | None, held: Callable[[], int],
        priority: int | None, alone: bool, deliver: Callable[[Subscription, Deliver], None],
    ) -> None:  # fmt: skip
        self.channel = channel
        self.queue = queue
        self.name = name
        """Of its queue, on the server."""
        self.came = 0
        """How many messages it has brought."""
        self.alone = alone
        """Whether the server gives to one consumer only, which may be another one."""
        self.limited = most is not None
        self._most = min(_MOST, most or _MOST)
        self._held = held
        self._arguments: dict[str, Any] = {} if priority is None else {"x-priority": priority}
        self._number = 0
        self._tag = b""
        self._prefetch = 0
        self._out = 0
        self._deliver = deliver
        channel.on_deliver = self._on_deliver

    @property
    def free(self) -> int:
        """How many more the server may send by itself."""
        return self._prefetch - self._out if self._tag else 0

    @property
    def idle(self) -> bool:
        """Whether the server may send, and nothing that it has sent is in the worker's hands."""
        return bool(self._tag) and not self._out and not self._held()

    def enough(self, count: int) -> bool:
        """Whether so many may come without anything being changed; half of it will do."""
        room = self._room(count)
        return room <= 0 or self.free >= max(1, room // 2)

    def _room(self, count: int) -> int:
        """So many, or as many as its limit leaves; the server does not count what consumers before this one brought."""
        return min(count, self._most - self._held() if self.limited else self._most)

    async def want(self, count: int) -> None:
        """Let so many come. Raises `WireLost` or `Refused`."""
        if self.enough(count):
            return
        await self.cease()
        room = self._room(count)
        if room <= 0:
            return
        self._prefetch = room
        await self.channel.call(commands.Basic.Qos(0, self._prefetch, False))
        self._number += 1
        self._out = 0
        tag = f"camora-{self._number}"
        self._tag = tag.encode()
        await self.channel.call(commands.Basic.Consume(0, self.name, tag, False, False, False, False, self._arguments))

    async def cease(self) -> None:
        """Let none come any more; what has come stays ours. Raises `WireLost` or `Refused`."""
        if self._tag:
            tag = self._tag.decode()
            await self.channel.call(commands.Basic.Cancel(tag, False))
            self._tag = b""

    def _on_deliver(self, message: Deliver) -> None:
        self.came += 1
        if message.consumer == self._tag:
            self._out += 1
        self._deliver(self, message)

    def answered(self, message: Deliver) -> None:
        """This one was acknowledged or given back."""
        if message.consumer == self._tag:
            self._out -= 1
