"""Ending a worker's lanes: in time, or in a hurry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from camora.worker.lane import Lane

__all__ = ["Draining", "bounded"]

_INTERRUPTION = 1.0
"""Seconds that interrupted jobs get to end."""
_HURRIED_INTERRUPTION = 0.4
_HURRIED_RELEASE = 0.7
_HURRIED_CLOSE = 0.2


async def bounded(work: Coroutine[Any, Any, Any], timeout: float | None) -> bool:
    """Do it for at most that many seconds; True when it has ended by itself. What it raises is raised."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        done, _ = await asyncio.wait([task], timeout=timeout)
    except BaseException:
        task.cancel()
        raise
    if done:
        task.result()
        return True
    task.cancel()
    return False


class Draining:
    """How far a worker's end has got. A hurried one waits for nobody who may never answer: it ends in two seconds."""

    def __init__(self, logger: logging.Logger) -> None:
        self.begun = False
        self.hurried = asyncio.Event()
        """Set once everything is to be given back at once."""
        self._logger = logger
        self._stops: asyncio.Task[Any] | None = None

    def hurry(self) -> None:
        """Give everything back at once."""
        self.hurried.set()

    async def stop(self, lanes: Sequence[Lane]) -> None:
        """Let them take nothing more; ends with a hurry, and then goes on beside what follows."""
        if self._stops is None:
            self._stops = asyncio.get_running_loop().create_task(_stop_all(lanes))
        await self.unless(self.hurried, self._stops)

    async def idle(self, lanes: Sequence[Lane], *, unless: asyncio.Event, timeout: float | None = None) -> bool:
        """Wait until they have settled all; False when the event, or the end of the time, came first."""
        task = asyncio.get_running_loop().create_task(_all_idle(lanes))
        try:
            return await self.unless(unless, task, timeout)
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def drain(self, lanes: Sequence[Lane], timeout: float) -> None:
        """Finish what runs within `timeout` seconds, or until there is a hurry; give the rest back."""
        self.begun = True
        await self.stop(lanes)
        if await self.idle(lanes, unless=self.hurried, timeout=timeout):
            return
        for lane in lanes:
            lane.give_back()
        interruption = _HURRIED_INTERRUPTION if self.hurried.is_set() else _INTERRUPTION
        if await self.idle(lanes, unless=asyncio.Event(), timeout=interruption):
            return
        releases = [lane.release_rest() for lane in lanes]
        if not await bounded(_all(releases), _HURRIED_RELEASE if self.hurried.is_set() else None):
            self._logger.warning("the broker did not take everything back in time; the leases lapse by themselves")

    async def close(self, lanes: Sequence[Lane]) -> None:
        """Let go of all lanes."""
        if self._stops is not None and not self._stops.done():
            self._stops.cancel()
            await asyncio.wait([self._stops])
        await bounded(_all([lane.close() for lane in lanes]), _HURRIED_CLOSE if self.hurried.is_set() else None)

    async def unless(self, event: asyncio.Event, task: asyncio.Task[Any], timeout: float | None = None) -> bool:
        """Wait for a task; False when the event, or the end of the time, came first. The task goes on then."""
        waiting = asyncio.get_running_loop().create_task(_set(event))
        try:
            await asyncio.wait([task, waiting], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])
        return task.done()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _all(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*works)


async def _stop_all(lanes: Sequence[Lane]) -> None:
    await asyncio.gather(*(lane.stop() for lane in lanes))


async def _all_idle(lanes: Sequence[Lane]) -> None:
    for lane in lanes:
        await lane.idle()
