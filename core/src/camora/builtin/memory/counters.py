"""Rates and slots, counted in memory."""

from __future__ import annotations

from camora import windows
from camora.interfaces.limits import Ask, Limit, LimitUse

__all__ = ["Counters"]

_SWEEP = 1000
"""Names after which those that count nothing any more are looked for."""


class Counters:
    """The rates and slots of one store; used under its lock. Moments are milliseconds on its monotonic clock."""

    def __init__(self) -> None:
        self.rates: dict[str, tuple[float, list[tuple[int, int]]]] = {}
        """For each name, the seconds of its window, and the grants in it."""
        self.slots: dict[str, dict[str, int]] = {}
        """For each name, its holders, and when their lease lapses."""
        self.names_of: dict[str, tuple[str, ...]] = {}
        """For each holder, the slots it holds."""
        self._sweep_at = _SWEEP

    def take(self, ask: Ask, now: int, until: int) -> float:
        """All limits of one ask, or the seconds to wait."""
        charged: list[tuple[Limit, list[tuple[int, int]]]] = []
        wait = 0.0
        for limit in ask.limits:
            if limit.per:
                window = self._window(limit, now)
                after, delay = windows.admit(window, now, most=limit.most, per=limit.per)
                charged.append((limit, after))
            else:
                delay = self._slot_in(limit, ask.holder, now)
            wait = max(wait, delay)
        if wait:
            return wait
        for limit, after in charged:
            self.rates[limit.name] = (limit.per, after)
        names = tuple(limit.name for limit in ask.limits if not limit.per)
        for name in names:
            self.slots.setdefault(name, {})[ask.holder] = until
        if names:
            self.names_of[ask.holder] = names
        if len(self.rates) + len(self.slots) > self._sweep_at:
            self._sweep(now)
        return 0.0

    def _window(self, limit: Limit, now: int) -> list[tuple[int, int]]:
        per, window = self.rates.get(limit.name, (limit.per, []))
        # Where its length was changed, the buckets have another length.
        return window if per == limit.per else windows.granted_now(windows.used(window, now, per), now, per=limit.per)

    def _slot_in(self, limit: Limit, holder: str, now: int) -> float:
        held = self.slots.get(limit.name)
        if held is None or holder in held or len(held) < limit.most:
            return 0.0
        for lapsed in [other for other, until in held.items() if until <= now]:
            del held[lapsed]
        if len(held) < limit.most:
            return 0.0
        return min(1.0, max(0.001, (min(held.values()) - now) / 1000))

    def keep(self, holder: str, now: int, until: int) -> bool:
        """Hold on; False when a lease has lapsed."""
        names = self.names_of.get(holder, ())
        if not names or not all(self.slots.get(name, {}).get(holder, 0) > now for name in names):
            return False
        for name in names:
            self.slots[name][holder] = until
        return True

    def give_back(self, holder: str) -> None:
        """Free its slots."""
        for name in self.names_of.pop(holder, ()):
            held = self.slots.get(name)
            if held is not None:
                held.pop(holder, None)
                if not held:
                    del self.slots[name]

    def use(self, name: str, now: int) -> LimitUse:
        """How far it is used up."""
        if name in self.rates:
            per, window = self.rates[name]
            return LimitUse(name=name, used=windows.used(window, now, per))
        holders = tuple(holder for holder, until in self.slots.get(name, {}).items() if until > now)
        return LimitUse(name=name, used=len(holders), holders=holders)

    def _sweep(self, now: int) -> None:
        """Keys taken from arguments come and go: what counts nothing any more is forgotten."""
        self.rates = {name: (per, w) for name, (per, w) in self.rates.items() if windows.used(w, now, per)}
        for name, held in list(self.slots.items()):
            alive = {holder: until for holder, until in held.items() if until > now}
            if alive:
                self.slots[name] = alive
            else:
                del self.slots[name]
        self.names_of = {
            holder: names
            for holder, names in self.names_of.items()
            if any(holder in self.slots.get(name, ()) for name in names)
        }
        self._sweep_at = max(_SWEEP, 2 * (len(self.rates) + len(self.slots)))
