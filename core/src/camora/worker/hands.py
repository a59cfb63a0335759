"""What a lane holds: every delivery in its hands, from receipt to settlement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from camora.executor import Run
from camora.message import Delivery

__all__ = ["Hands"]


class Hands:
    """The runs of one lane, by delivery. Belongs to one event loop."""

    def __init__(self) -> None:
        self._runs: dict[Delivery, Run] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.put_off: set[Run] = set()
        """Those that have ended and whose settlement the broker does not take for a while."""
        self.let_go = 0
        """How many have left so far."""

    def add(self, delivery: Delivery) -> Run:
        """Take a delivery in."""
        if not self._runs:
            self._empty.clear()
        run = self._runs[delivery] = Run(delivery)
        return run

    def drop(self, run: Run) -> None:
        """It is settled, or somebody else's. May be repeated."""
        if self._runs.pop(run.delivery, None) is not None:
            self.put_off.discard(run)
            self.let_go += 1
            if not self._runs:
                self._empty.set()

    def get(self, delivery: Delivery) -> Run | None:
        """The run of this delivery, while it is held."""
        return self._runs.get(delivery)

    async def emptied(self) -> None:
        """Wait until nothing is held."""
        await self._empty.wait()

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery in self._runs

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def __len__(self) -> int:
        return len(self._runs)
