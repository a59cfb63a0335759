"""The scheduler's two extension points: when something is due, and where schedules are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, Self, runtime_checkable

import msgspec

__all__ = ["Fire", "ScheduleRecord", "ScheduleStore", "Trigger"]


@runtime_checkable
class Trigger(Protocol):
    """Moments in time. Immutable, without I/O."""

    def next_after(self, moment: datetime) -> datetime | None:
        """The first moment strictly after this aware one; None when there is none any more."""

    def describe(self) -> dict[str, Any]:
        """Plain data from which its provider makes an equal trigger; stored with the schedule."""


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored schedule. `last` and `next` are milliseconds since the epoch."""

    key: str
    group: str = "default"
    trigger: dict[str, Any] = msgspec.field(default_factory=dict)
    signature: bytes = b""
    origin: str = "code"
    """`code` and `config` schedules follow the deploy; `runtime` ones stay until removed."""
    paused: bool = False
    last: int | None = None
    next: int | None = None


class Fire(msgspec.Struct, frozen=True, kw_only=True):
    """One due tick, claimed: (key, tick) is unique in the store for ever."""

    key: str
    tick: int
    record: ScheduleRecord


class ScheduleStore(ABC):
    """Keeps schedules, and hands out each tick once, however many schedulers ask."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing. Raises `BrokerUnavailable`."""

    @abstractmethod
    async def put(self, records: Sequence[ScheduleRecord]) -> None:
        """Add or replace by key; the last tick and the pause of an existing one stay."""

    @abstractmethod
    async def remove(self, keys: Sequence[str]) -> int:
        """Delete; returns how many there were."""

    @abstractmethod
    async def list(self, group: str | None = None) -> Sequence[ScheduleRecord]:
        """All schedules of a group, or all, in order of key."""

    @abstractmethod
    async def claim(self, key: str, tick: int, next_tick: int | None, holder: str) -> Fire | None:
        """Take one tick, atomically, and note the next; None when another scheduler has it already."""

    @abstractmethod
    def twin(self) -> Self:
        """An unopened store on the same data, for another event loop."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. May be repeated."""
