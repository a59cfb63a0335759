"""When to come again to a limit that had no room."""

from __future__ import annotations

from collections.abc import Sequence

from camora.clock import Clock
from camora.interfaces.limits import Limit

__all__ = ["Pacing"]

_FIRST_STEP = 0.05
"""Seconds between two who come again for a slot, while nobody has seen how long jobs hold it."""
_DROUGHT = 0.1
"""The step between two is at least this part of the time for which nobody got anything."""
_LATE = 1.012
"""Places of a rate come free up to a hundredth of its window late: who comes on the dot is refused, and starts anew."""
_SOONEST = 0.01
_LATEST = 15.0
"""Seconds after which somebody comes again for a slot, however many there are: jobs may have become shorter."""
_REMEMBERED = 1000


class Pacing:
    """Sends those who were refused away for different times, so that they come again one by one.

    For a rate the step between two of them is known. For slots it is learned from the grants this worker sees, as a
    moving average: a thousand jobs that wait for one slot shall not all ask, and be given back, every second.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}
        """When the next one may come, for each limit that refused somebody."""
        self._steps: dict[str, float] = {}
        self._since: dict[str, float] = {}
        """When a slot was granted last, or first refused."""

    def granted(self, limits: Sequence[Limit]) -> None:
        """Somebody got these."""
        if not self._next:
            return
        now = self._clock.monotonic()
        for limit in limits:
            if limit.per or limit.name not in self._next:
                continue
            between = min(now - self._since[limit.name], _LATEST)
            self._steps[limit.name] = 0.8 * self._steps[limit.name] + 0.2 * between
            self._since[limit.name] = now

    def _step(self, limit: Limit, now: float) -> float:
        if limit.per:
            return limit.per / limit.most * _LATE
        since = self._since.setdefault(limit.name, now)
        return max(self._steps.setdefault(limit.name, _FIRST_STEP), _DROUGHT * (now - since))

    def delay(self, limits: Sequence[Limit], wait: float) -> float:
        """Seconds to stay away for one who was refused and told to wait that long."""
        now = self._clock.monotonic()
        delay = max(wait, _SOONEST)
        for limit in limits:
            at = max(self._next.get(limit.name, 0.0), now + wait)
            if not limit.per:
                at = min(at, now + _LATEST)
            self._next[limit.name] = at + self._step(limit, now)
            delay = max(delay, at - now)
        if len(self._next) > _REMEMBERED:
            self._forget(now)
        return delay

    def _forget(self, now: float) -> None:
        """Names taken from arguments come and go."""
        self._next = {name: at for name, at in self._next.items() if at > now}
        self._steps = {name: step for name, step in self._steps.items() if name in self._next}
        self._since = {name: at for name, at in self._since.items() if name in self._next}
