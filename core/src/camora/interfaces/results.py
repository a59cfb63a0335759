"""The result backend: what became of jobs, and waiting for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from camora.errors import UnsupportedCapability
from camora.interfaces.companions import Companions
from camora.outcome import JobRecord

__all__ = ["ResultBackend"]


class ResultBackend(Companions, ABC):
    """A store of job records. Belongs to the event loop in which it was opened; `twin` serves another one."""

    private: bool = False
    """True where a record is known only in the process that dispatched the job, told by a broker that `settles_into`
    this backend; with any other broker an app refuses to use it."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing. Raises `BrokerUnavailable` or `ConfigurationError`."""

    @abstractmethod
    async def store(self, records: Sequence[JobRecord]) -> None:
        """Keep a batch of records, each for its `ttl` seconds, and wake whoever waits for them.

        A finished record stands: a later one for the same id changes nothing (the first writer wins). An unfinished
        record (progress) replaces an unfinished one. May be repeated. Raises `BrokerUnavailable`.
        """

    @abstractmethod
    async def fetch(self, job_ids: Sequence[str]) -> Sequence[JobRecord | None]:
        """The record of each id, in order; None for what is unknown or past its time."""

    @abstractmethod
    async def wait(self, job_id: str, timeout: float | None) -> JobRecord | None:
        """The finished record, as soon as there is one; None after `timeout` seconds (None: wait for ever).

        Pushed where the store can; never a busy poll. Many may wait at once.
        """

    @abstractmethod
    async def forget(self, job_ids: Sequence[str]) -> int:
        """Delete records before their time, so that their jobs can be run again; returns how many there were."""

    async def prune(self, before: int, *, only_successful: bool = False, limit: int = 1000) -> int:
        """Delete up to `limit` records of jobs that finished before this moment (ms since the epoch); returns how many.

        With `only_successful`, those that succeeded. Called again until it answers 0. Raises `UnsupportedCapability`
        where records cannot be looked up by time; there they go by their `ttl` alone.
        """
        del before, only_successful, limit
        raise UnsupportedCapability(
            f"{self!r} cannot delete records by age: they go when their time is over ([results] ttl)",
            capability="prune",
        )

    @abstractmethod
    def twin(self) -> Self:
        """An unopened backend on the same store, for another event loop or thread."""

    def abandon(self) -> None:
        """As `Broker.abandon`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections; pending `wait`s end with None. May be repeated."""
