"""Whether limits have room: plain reckoning on what was read of them, for one batch of asks."""

from __future__ import annotations

import attrs
from camora import windows
from camora.interfaces.limits import Ask, Limit

__all__ = ["Rate", "Tally", "granted_now"]

Grants = list[tuple[int, int]]


@attrs.frozen
class Rate:
    """What was granted of a rate: the seconds of its window, and the window as `camora.windows` keeps it."""

    per: float
    grants: Grants = attrs.field(factory=list)

    def used(self, now: int) -> int:
        """How many grants count at this moment."""
        return windows.used(self.grants, now, self.per)

    def empty_at(self, now: int) -> int:
        """A moment after which nothing counts of what was granted until now."""
        return now + round(self.per * 1010) + 2


def granted_now(count: int, now: int, *, per: float) -> Rate:
    """A rate of which so much was granted just now; see `windows.granted_now`."""
    return Rate(per, windows.granted_now(count, now, per=per))


@attrs.define
class Tally:
    """What is used of some limits at `now`, and what the asks of a batch add to it. Moments are milliseconds."""

    now: int
    rates: dict[str, Rate]
    held: dict[str, tuple[int, int]]
    """For each name, how many slots are held, and when the first of them lapses."""
    holding: set[tuple[str, str]]
    """(name, holder) of slots that these askers hold already."""
    charged: set[str] = attrs.field(factory=set, init=False)
    """Rates that have changed."""
    taken: dict[tuple[str, str], int] = attrs.field(factory=dict, init=False)
    """(name, holder) of slots that were granted, and until when."""

    def take(self, ask: Ask, until: int) -> float:
        """All limits of one ask, which is 0.0; or the seconds to wait, and nothing is changed."""
        charged: dict[str, Rate] = {}
        wait = 0.0
        for limit in ask.limits:
            if limit.per:
                rate = charged.get(limit.name) or self._rate(limit)
                after, delay = windows.admit(rate.grants, self.now, most=limit.most, per=limit.per)
                charged[limit.name] = Rate(limit.per, after)
            else:
                delay = self._slot_in(limit, ask.holder)
            wait = max(wait, delay)
        if wait:
            return wait
        self.rates.update(charged)
        self.charged.update(charged)
        for limit in ask.limits:
            if not limit.per:
                self._hold(limit.name, ask.holder, until)
        return 0.0

    def _rate(self, limit: Limit) -> Rate:
        rate = self.rates.get(limit.name)
        if rate is None:
            return Rate(limit.per)
        # Where a deploy has changed it, its buckets have another length.
        return rate if rate.per == limit.per else granted_now(rate.used(self.now), self.now, per=limit.per)

    def _slot_in(self, limit: Limit, holder: str) -> float:
        count, lapses = self.held.get(limit.name, (0, 0))
        if (limit.name, holder) in self.holding or count < limit.most:
            return 0.0
        return min(1.0, max(0.001, (lapses - self.now) / 1000))

    def _hold(self, name: str, holder: str, until: int) -> None:
        place = (name, holder)
        if place not in self.holding:
            count, lapses = self.held.get(name, (0, until))
            self.held[name] = (count + 1, min(lapses, until))
            self.holding.add(place)
        self.taken[place] = until
