"""Messages in a worker's hands, and for how long they are its own."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Iterable
from typing import Any

from camora_amqp.frames import Deliver, Properties
from camora_amqp.wire import Channel

__all__ = ["Hold", "Ledger", "Lent"]


class Hold(enum.Enum):
    """What became of a message that was lent."""

    HELD = enum.auto()
    SETTLING = enum.auto()
    GONE = enum.auto()
    """Settled, or lost: nothing that is done with it counts any more."""


class Lent:
    """One delivery: the receipt by which it is settled."""

    __slots__ = (
        "__weakref__",
        "channel",
        "deadline",
        "deliveries",
        "hold",
        "message",
        "parked",
        "properties",
        "published",
        "queue",
        "since",
    )

    def __init__(
        self, channel: Channel, message: Deliver, queue: str, properties: Properties, deliveries: int, deadline: float
    ) -> None:
        self.channel = channel
        self.message = message
        self.queue = queue
        self.properties = properties
        self.deliveries = deliveries
        self.deadline = deadline
        """Monotonic time up to which its lease lasts."""
        self.since = time.monotonic()
        """When it came, or was last exchanged for a copy."""
        self.parked = False
        """Whether a copy stands for it, which must not go back to where it came from."""
        self.hold = Hold.HELD
        self.published: set[tuple[str, bool]] | None = None
        """What its settlement has stored already, if it has to be repeated: ids, and whether it was a reply."""


class Ledger:
    """All that is lent, by channel and tag. For the worker's loop, the keeper's thread and the consumer's own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._lent: dict[Channel, dict[int, Lent]] = {}

    def open(self, channel: Channel) -> None:
        """A channel begins to deliver."""
        with self.lock:
            self._lent[channel] = {}

    def add(self, lent: Lent) -> None:
        """One more."""
        with self.lock:
            self._lent[lent.channel][lent.message.tag] = lent

    def lose(self, channel: Channel) -> None:
        """The channel is gone: what came by it belongs to others."""
        with self.lock:
            for lent in self._lent.pop(channel, {}).values():
                lent.hold = Hold.GONE

    def begin(self, receipts: Iterable[Any]) -> list[bool]:
        """Those that are to be settled now; False for what is not ours any more."""
        answers = []
        with self.lock:
            for one in receipts:
                held = isinstance(one, Lent) and one.hold is Hold.HELD
                if held:
                    one.hold = Hold.SETTLING
                answers.append(held)
        return answers

    def undo(self, lent: Iterable[Lent], deadline: float) -> None:
        """They were not settled after all."""
        with self.lock:
            for one in lent:
                if one.hold is Hold.SETTLING:
                    one.hold = Hold.HELD
                    one.deadline = max(one.deadline, deadline)

    def finish(self, lent: Iterable[Lent]) -> list[bool]:
        """They are settled; False for those that were lost meanwhile."""
        answers = []
        with self.lock:
            for one in lent:
                mine = one.hold is Hold.SETTLING
                if mine:
                    one.hold = Hold.GONE
                answers.append(mine)
        return answers

    def take(self, one: Lent, deadline: float) -> bool:
        """Hand it out, under a lease that begins now; False when it is not here any more."""
        with self.lock:
            one.deadline = deadline
            return one.hold is Hold.HELD

    def extend(self, receipts: Iterable[Any], deadline: float) -> list[bool]:
        """Make these last until then; False for those that are lost or settled."""
        answers = []
        with self.lock:
            for one in receipts:
                held = isinstance(one, Lent) and one.hold is not Hold.GONE
                if held:
                    one.deadline = deadline
                answers.append(held)
        return answers

    def held(self, queue: str) -> int:
        """How many of this queue are not answered yet."""
        with self.lock:
            return sum(one.queue == queue for lent in self._lent.values() for one in lent.values())

    def lapsed(self, now: float) -> list[Lent]:
        """Those whose lease is over: they are lost from now on."""
        found = []
        with self.lock:
            for lent in self._lent.values():
                for one in lent.values():
                    if one.deadline <= now and one.hold is Hold.HELD:
                        one.hold = Hold.GONE
                        found.append(one)
        return found

    def old(self, before: float) -> list[Lent]:
        """Those that have been held since before this moment."""
        with self.lock:
            return [
                one
                for lent in self._lent.values()
                for one in lent.values()
                if one.since < before and one.hold is Hold.HELD
            ]

    def move(self, one: Lent, channel: Channel, message: Deliver) -> tuple[Channel, int] | None:
        """From now on this message stands for it; answers with the one before, or None when it is not held any more."""
        with self.lock:
            if one.hold is Hold.GONE or self._lent.get(one.channel, {}).pop(one.message.tag, None) is None:
                return None
            before = one.channel, one.message.tag
            one.channel, one.message, one.parked = channel, message, True
            self._lent[channel][message.tag] = one
            return before

    def answered(self, channel: Channel, tags: Iterable[int]) -> tuple[int, list[int]]:
        """These are about to be acknowledged: up to which tag all can be at once, and the others one by one."""
        with self.lock:
            lent = self._lent.get(channel)
            if lent is None:
                return 0, []
            wanted = {tag for tag in tags if tag in lent}
            upto = 0
            for tag in lent:  # in the order in which they came
                if tag not in wanted:
                    break
                upto = tag
            for tag in wanted:
                del lent[tag]
            return upto, sorted(tag for tag in wanted if tag > upto)

    def parked(self) -> list[Lent]:
        """Those for which a copy stands: they are lost from now on."""
        found = []
        with self.lock:
            for lent in self._lent.values():
                for one in lent.values():
                    if one.parked and one.hold is Hold.HELD:
                        one.hold = Hold.GONE
                        found.append(one)
        return found

    def drop(self, one: Lent) -> bool:
        """It is about to be given back; False when its channel is gone."""
        with self.lock:
            return self._lent.get(one.channel, {}).pop(one.message.tag, None) is not None
