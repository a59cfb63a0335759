"""A look, now and then, whether a queue that brings nothing has nothing.

RabbitMQ can end a consumer without a word: when a quorum queue is deleted and made again at once, the worker hears
nothing of it, and nothing ever again (seen with 3.10). The server may even count messages as delivered that it has
dropped on the way, so that the queue looks empty: what has brought nothing for long is begun anew on another channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from pamqp import commands

from camora_amqp.errors import Refused
from camora_amqp.subscription import Subscription
from camora_amqp.wire import Channel, Wire

__all__ = ["watch"]

_PAUSE = 2.0
"""Seconds between two looks."""
_LONG = 3
"""Looks at which nothing had come, and nothing was held."""


async def watch(
    wire: Wire,
    subscriptions: Mapping[Channel, Subscription],
    forgotten: Callable[[Subscription], Awaitable[None]],
    silent: Callable[[Subscription], Awaitable[None]],
) -> None:
    """Tell of each that has room, and got nothing between two looks though its queue had something at both, or is gone.

    Tell of those, too, that are `silent` for long. Ends with the wire: raises `WireLost`.
    """
    quiet: dict[Subscription, tuple[int, int]] = {}
    looking: Channel | None = None
    before: dict[Subscription, int] = {}
    while True:
        await asyncio.sleep(_PAUSE)
        suspects: dict[Subscription, int] = {}
        quiet = {one: _looks(one, quiet.get(one)) for one in list(subscriptions.values())}
        for one in [one for one, (_, looks) in quiet.items() if looks >= _LONG]:
            await silent(one)
        for one in list(subscriptions.values()):
            if not one.free or one.alone:
                continue
            if looking is None or looking.error is not None:
                looking = await wire.channel()
            if not await _has_something(looking, one.name) or not one.free:
                continue
            if before.get(one) == one.came:
                await forgotten(one)
            else:
                suspects[one] = one.came
        before = suspects


def _looks(one: Subscription, before: tuple[int, int] | None) -> tuple[int, int]:
    """How many messages it has brought, and at how many looks it had brought no more."""
    if before is None or before[0] != one.came or not one.idle:
        return one.came, 0
    return one.came, before[1] + 1


async def _has_something(channel: Channel, name: str) -> bool:
    try:
        told = await channel.call(commands.Queue.Declare(0, name, True, False, False, False, False, {}))
    except Refused:
        return True  # it is gone
    return bool(told.message_count)
