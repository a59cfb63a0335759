"""Taking, and holding still, in any event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import uvloop
from camora.message import Delivery
from camora.worker.taking import Taker


class Asked:
    """A consumer that has nothing, and counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        self.times += 1
        await asyncio.sleep(0.01)
        return []

    async def stop(self) -> None: ...


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_whoever_was_held_asks_again(run: Callable[[Any], None]) -> None:
    """uvloop's timers may fire a little early: one of many takers must not wait for ever because of that."""

    async def one(seconds: float) -> None:
        asked = Asked()
        taker = Taker(
            asked,  # type: ignore[arg-type]
            room=lambda: 5,
            took=lambda *_: None,
            poll_interval=1.0,
            logger=logging.getLogger("camora.test"),
        )
        taker.start()
        while not asked.times:
            await asyncio.sleep(0.001)
        taker.hold(seconds)
        assert taker.held
        until = time.monotonic() + seconds
        await asyncio.sleep(0.02)  # what was under way
        before = asked.times
        async with asyncio.timeout(60):
            while asked.times == before:
                await asyncio.sleep(0.001)
        assert time.monotonic() >= until
        await taker.stop()

    async def many() -> None:
        await asyncio.gather(*(one(0.1 + number * 0.00137) for number in range(150)))

    run(many())
