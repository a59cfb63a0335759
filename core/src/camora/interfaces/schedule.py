"""The scheduler's two extension points: when something is due, and where schedules are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, Self, runtime_checkable

import msgspec

__all__ = ["CatchUp", "Fire", "Overlap", "ScheduleRecord", "ScheduleStore", "Trigger"]

CatchUp = Literal["one", "all", "none"]
"""Ticks missed while no scheduler ran: fire once for all of them, for each, or not at all."""
Overlap = Literal["allow", "skip"]
"""When the job of the tick before is unfinished: fire all the same, or leave this tick out."""


@runtime_checkable
class Trigger(Protocol):
    """Moments in time. Immutable, without I/O."""

    def next_after(self, moment: datetime) -> datetime | None:
        """The first moment strictly after this aware one, aware and in UTC; None when there is none any more."""

    def describe(self) -> dict[str, Any]:
        """Plain data from which its provider makes an equal trigger: `{"use": provider's name, **settings}`."""


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored schedule. Moments are milliseconds since the epoch."""

    key: str
    group: str = "default"
    trigger: dict[str, Any] = msgspec.field(default_factory=dict)
    """What `Trigger.describe` answered."""
    task: str = ""
    queue: str = ""
    message: bytes = b""
    """The encoded message that each tick sends: a template without an id, whose moments are set when it is sent."""
    origin: str = "code"
    """`code` and `config` schedules follow the deploy; `runtime` ones stay until removed."""
    app: str = ""
    """The name of the app that declared it: several may share a store, and none removes another one's schedules."""
    catch_up: CatchUp = "one"
    overlap: Overlap = "allow"
    paused: bool = False
    last: int | None = None
    """The tick that fired last."""
    last_job: str = ""
    next: int | None = None
    """The next tick; None when there is none any more."""
    version: int = 0
    """Grows with every change of the record; the store counts it."""


class Fire(msgspec.Struct, frozen=True, kw_only=True):
    """A due schedule, lent to one scheduler. `receipt` is the store's fencing token."""

    record: ScheduleRecord
    receipt: Any = None


class ScheduleStore(ABC):
    """Keeps schedules, and lends each due one to one scheduler at a time, however many ask.

    A scheduler claims what is due, publishes the jobs (their ids follow from key and tick, so that a repeat is
    recognised), and moves the schedule on with `advance`. Dies it in between, the lease lapses and another one
    repeats the tick under the same id. Belongs to the event loop in which it was opened; all methods raise
    `BrokerUnavailable` when the store is away.

    One rule holds for loans: whatever else gives a schedule another `next`, or removes it, ends its loan. Everything
    else (a pause, another message) leaves the loan alone, and `advance` leaves everything else alone.
    """

    last_resort: bool = False
    """True for a broker's store that an app uses only where its result backend keeps no schedules."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing. Raises `BrokerUnavailable`."""

    @abstractmethod
    async def put(self, records: Sequence[ScheduleRecord]) -> None:
        """Add or replace by key; all of them, or none when it raises.

        Of an existing record `last`, `last_job` and `paused` stay, and `next` too unless its `trigger` has changed. A
        `runtime` record is not replaced by one of another origin, nor the other way round, nor a `code` or `config`
        record by one of another `app`: raises `ConfigurationError` naming key, origin and app. A record that changes
        nothing is not written, and keeps its `version`.
        """

    @abstractmethod
    async def remove(self, keys: Sequence[str]) -> int:
        """Delete; returns how many there were. A fire under way loses its lease."""

    @abstractmethod
    async def get(self, keys: Sequence[str]) -> Sequence[ScheduleRecord | None]:
        """The record of each key, in order; None for what there is not."""

    @abstractmethod
    async def list(self, group: str | None = None) -> Sequence[ScheduleRecord]:
        """All schedules of a group, or all, in order of key (by code point)."""

    @abstractmethod
    async def pause(
        self, keys: Sequence[str], *, paused: bool | None = True, next_ticks: Sequence[int | None] = ()
    ) -> int:
        """Pause or resume (None: leave that as it is); returns how many exist.

        `next_ticks`, if given, are one each, and become `next`: for ticks that were missed meanwhile.
        """

    @abstractmethod
    async def claim(
        self, now: int, *, holder: str, lease: float, groups: Sequence[str] | None = None, limit: int = 100
    ) -> Sequence[Fire]:
        """Lend out, atomically, up to `limit` schedules whose `next` is at or before `now` (ms), the oldest tick first.

        Not those that are paused or lent already. A loan not ended by `advance` has lapsed for any claim at
        `now + lease` or later, by the callers' own time; so has one that would end more than a minute later than a
        loan made now: then the clock was set back. Each loan has a receipt of its own.
        """

    @abstractmethod
    async def advance(self, fire: Fire, *, last: int | None, next_tick: int | None, job_id: str = "") -> bool:
        """Note what fired and what comes next, and end the loan.

        `last` None: nothing fired, only `next` moves. False, changing nothing, when the loan is over: lent anew, ended
        by a change, or given back before. One that has lapsed and was not lent anew still counts.
        """

    @abstractmethod
    async def next_due(self, groups: Sequence[str] | None = None) -> int | None:
        """The earliest `next` of all that are not paused, in milliseconds; what is lent counts with its lease's end."""

    @abstractmethod
    async def changed(self, timeout: float) -> None:
        """Return soon after somebody has put, removed, paused or resumed a schedule, at the latest after `timeout` s.

        Early is allowed, also again and again. What changed while nobody was in here ends the next call at once, so
        that no change is slept through. A scheduler sleeps here.
        """

    @abstractmethod
    def twin(self) -> Self:
        """An unopened store on the same data, for another event loop."""

    def abandon(self) -> None:  # noqa: B027 -- most have nothing to do
        """As `Broker.abandon`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. May be repeated."""
