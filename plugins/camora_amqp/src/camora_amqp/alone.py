"""One process at a time: a lock whose holder loses it with its connection."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import aiormq.exceptions
from camora.errors import BrokerUnavailable

from camora_amqp.control import Control

__all__ = ["alone"]

_PAUSES = (0.002, 0.05)
"""Seconds between two tries: at first, and at most."""


@contextlib.asynccontextmanager
async def alone(control: Control, name: str, patience: float) -> AsyncIterator[Any]:
    """A channel, while no other connection has this lock; raises `BrokerUnavailable` after `patience` seconds.

    The lock is an exclusive queue: the server gives it to one connection, and deletes it when that ends. (A consumer
    that asks to be alone is not, in a quorum queue.) Whoever shares the connection must keep apart from others by
    himself. What the channel holds is given back before the lock is.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + patience, _PAUSES[0]
    while True:
        try:
            async with control.channel() as holding:
                await holding.queue_declare(queue=name, exclusive=True, auto_delete=True)
                try:
                    async with _another(holding) as channel:
                        yield channel
                finally:
                    try:
                        await holding.queue_delete(queue=name)
                    except BaseException:
                        await control.close()  # without the connection there is no lock for sure
                        raise
                return
        except BrokerUnavailable as error:
            if not isinstance(error.__cause__, aiormq.exceptions.ChannelLockedResource):
                raise
            if loop.time() > deadline:
                raise BrokerUnavailable(f"{name} has been held by another process for {patience:g} s") from error
        await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 -- jitter
        pause = min(pause * 1.5, _PAUSES[1])


@contextlib.asynccontextmanager
async def _another(channel: Any) -> AsyncIterator[Any]:
    """A channel on the same connection."""
    made = await channel.connection.channel(on_return_raises=True)
    try:
        yield made
    finally:
        with contextlib.suppress(Exception):
            await made.close()
