"""Long runs, in one call: for tests without an event loop, and for generated ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

from camora.outcome import DeadLetter
from camora.testing.dispatched import Dispatched
from camora.testing.finished import Finished
from camora.testing.worker import START, TestWorker

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["Simulation", "simulate"]


@attrs.frozen(kw_only=True)
class Simulation:
    """What has come of a simulated time."""

    seed: int
    ended: datetime
    log: tuple[str, ...]
    dispatched: Dispatched
    finished: Finished
    dead_letters: tuple[DeadLetter, ...]

    def __repr__(self) -> str:
        return (
            f"<Simulation until {self.ended.isoformat()} under seed {self.seed}: {len(self.dispatched)} dispatched, "
            f"{len(self.finished)} finished, {len(self.dead_letters)} dead>"
        )


def simulate(
    app: Camora,
    scenario: Callable[[TestWorker], Awaitable[Any]] | None = None,
    *,
    length: timedelta = timedelta(0),
    seed: int = 0,
    start: datetime = START,
    **options: Any,
) -> Simulation:
    """Run a scenario in a `TestWorker`, then `length` of virtual time; blocks until that is over.

    `options` are the `TestWorker`'s. Every call begins with empty queues, and the same app, scenario and seed give the
    same `log`. Raises what the scenario raises; `RuntimeError` inside a running event loop.
    """

    async def run() -> Simulation:
        async with TestWorker(app, seed=seed, start=start, **options) as worker:
            if scenario is not None:
                await scenario(worker)
            await worker.advance(length)
            return Simulation(
                seed=seed,
                ended=worker.now,
                log=tuple(worker.log),
                dispatched=worker.dispatched,
                finished=worker.finished,
                dead_letters=tuple(worker.dead_letters),
            )

    return asyncio.run(run())
