"""Where a claimer has got to: what lies behind it has been taken, but for what comes late, or comes back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Cursors"]

_SLACK_MS = 100
"""How far back a claim looks: others publish with clocks that differ a little, and commit when they are done."""
_SETTLED_MS = 10_000
"""Where it has got to places as old as that, it does not look back: whoever was slow then has committed since."""
_EVERY = 1.0
"""Seconds after which a claim looks at everything, for what was given back or was committed late."""
_SHARE = 50
"""It does so the less often the longer it takes: at most one part in so many of the time."""
_MOST = 64
"""Levels that are remembered."""
_LOWEST, _HIGHEST = -(2**31), 2**31 - 1


class Cursors:
    """For each priority of each queue that anything was taken of, the last place of that."""

    def __init__(
        self, queues: Sequence[str], moment: Callable[[], int], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._queues = queues
        self._moment = moment
        """Milliseconds since the epoch, by the clock of the places."""
        self._now = now
        self._levels: dict[tuple[str, int], tuple[int, int]] = {}
        self._whole_at = 0.0

    @property
    def usable(self) -> bool:
        """Whether the next claim may begin here; else it looks at everything."""
        return bool(self._levels) and self._now() < self._whole_at

    def columns(self) -> list[list[Any]]:
        """The levels' queues, priorities, dues and places; the gaps' queues, and the priorities they lie between."""
        levels, settled = list(self._levels.items()), self._moment() - _SETTLED_MS
        found: list[list[Any]] = [
            [queue for (queue, _), _ in levels],
            [priority for (_, priority), _ in levels],
            [due if due <= settled else due - _SLACK_MS for _, (due, _) in levels],
            [seq if due <= settled else 0 for _, (due, seq) in levels],
        ]
        gaps = [gap for queue in self._queues for gap in self._gaps(queue)]
        return [*found, *([gap[place] for gap in gaps] for place in range(3))]

    def _gaps(self, queue: str) -> list[tuple[str, int, int]]:
        known = sorted(priority for of, priority in self._levels if of == queue)
        edges = [_LOWEST, *known, _HIGHEST]
        return [(queue, above, below) for above, below in itertools.pairwise(edges) if below - above > 1]

    def advance(self, rows: Sequence[Sequence[Any]]) -> None:
        """These rows (seq, priority, due, id, queue, …) were taken."""
        for row in rows:
            level = (row[4], row[1])
            place = (row[2], row[0])
            if place > self._levels.get(level, (0, 0)):
                self._levels[level] = place
        if len(self._levels) > _MOST:
            self.forget()

    def looked_at_everything(self, seconds: float) -> None:
        """A claim has done so, and it took so long."""
        self._whole_at = self._now() + max(_EVERY, seconds * _SHARE)

    def forget(self) -> None:
        """Have the next claim look at everything."""
        self._levels.clear()
