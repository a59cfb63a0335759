"""An app in memory on a clock that stands still, whose broker notes every message and fails on demand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

import attrs
from camora import Camora
from camora.builtin.memory import MemoryBroker, MemoryStore
from camora.interfaces.observer import Observer
from camora.message import Envelope, Message
from camora.scheduler import Scheduler
from camora.testing.clock import VirtualClock

__all__ = ["START", "Desk", "NotingBroker", "Shop", "stamp"]

START = datetime(2024, 1, 1, 12, 0, 30, tzinfo=UTC)
"""When the clock begins."""


def stamp(moment: datetime) -> int:
    """Milliseconds since the epoch."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@attrs.define
class Desk:
    """What all twins of a broker share: what was published, and what is to go wrong with it."""

    sent: list[Envelope] = attrs.field(factory=list)
    """Every message that was handed to the broker, repetitions included."""
    before: list[Exception] = attrs.field(factory=list)
    """Raised, one at a time, instead of publishing."""
    after: list[Exception] = attrs.field(factory=list)
    """Raised, one at a time, after having published."""


class NotingBroker(MemoryBroker):
    """A memory broker with a desk."""

    def __init__(self, store: MemoryStore, desk: Desk) -> None:
        super().__init__(store)
        self.desk = desk

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        if self.desk.before:
            raise self.desk.before.pop(0)
        self.desk.sent += envelopes
        ids = await super().publish(envelopes)
        if self.desk.after:
            raise self.desk.after.pop(0)
        return ids

    def twin(self) -> Self:
        return type(self)(self.store, self.desk)


class Shop:
    """One deploy of an app; several may share a store, as processes share a database."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        clock: VirtualClock | None = None,
        *,
        app: str = "shop",
        observers: Sequence[Observer] = (),
        results: bool | None = None,
    ) -> None:
        self.clock = clock or VirtualClock(stamp(START))
        self.store = store or MemoryStore(self.clock)
        self.desk = Desk()
        self.app = Camora(
            NotingBroker(self.store, self.desk), clock=self.clock, name=app, observers=observers, results=results
        )
        self.app.schedules.parts = attrs.evolve(self.app.schedules.parts, app=app)
        self.report = self.app.task(name="report", queue="reports")(report)

    def again(self, *, app: str = "shop") -> Shop:
        """Another deploy on the same store."""
        return Shop(self.store, self.clock, app=app)

    def scheduler(self, *groups: str) -> Scheduler:
        return self.app.make_scheduler(groups=groups or None)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    @property
    def messages(self) -> list[Message]:
        """What was published, without repetitions."""
        return [self.app.codec.decode(envelope.body) for envelope in {one.id: one for one in self.desk.sent}.values()]

    @property
    def ticks(self) -> list[str]:
        """The ticks of what was published, repetitions included: `12:01`, or with seconds where there are any."""
        found = [self.app.codec.decode(one.body).headers["camora.tick"] for one in self.desk.sent]
        return [moment[11:19].removesuffix(":00") for moment in found]

    async def queued(self) -> int:
        """How many jobs the broker holds."""
        counts = await self.app.queue_control.counts()
        return sum(counts.get("reports", {}).values())


async def report(name: str = "") -> str:
    return name
