"""Who is there: the workers that reported in time, and what they have not been told yet."""

from __future__ import annotations

import attrs

from camora.interfaces.workers import Order, WorkerInfo

__all__ = ["Presence", "Presences"]


@attrs.define
class Presence:
    """A worker that lives until `lapses` (monotonic seconds), and the orders it has not heard yet."""

    info: WorkerInfo
    lapses: float
    orders: list[Order] = attrs.field(factory=list)


class Presences:
    """By name. Every method takes the monotonic time, and forgets first whose time has passed."""

    def __init__(self) -> None:
        self._by_name: dict[str, Presence] = {}

    def put(self, info: WorkerInfo, ttl: float, now: float) -> list[Order]:
        """Note what it says; the orders it has not heard yet."""
        known = self._alive(now).get(info.name)
        self._by_name[info.name] = Presence(info, now + ttl)
        return [] if known is None else known.orders

    def all(self, now: float) -> list[WorkerInfo]:
        """All, in order of name."""
        return [presence.info for _, presence in sorted(self._alive(now).items())]

    def order(self, name: str, order: Order, now: float) -> bool:
        """Leave an order; False when there is nobody of this name."""
        known = self._alive(now).get(name)
        if known is not None:
            known.orders.append(order)
        return known is not None

    def remove(self, name: str) -> None:
        """Forget one."""
        self._by_name.pop(name, None)

    def _alive(self, now: float) -> dict[str, Presence]:
        for name in [name for name, presence in self._by_name.items() if presence.lapses <= now]:
            del self._by_name[name]
        return self._by_name
