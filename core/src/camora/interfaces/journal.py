"""The journal: what a job has done so far, so that it need not be done again, and what was sent to it meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

__all__ = ["Journal", "is_awaited", "signal_entry", "timeout_entry", "wait_entry"]


def signal_entry(name: str, number: int | None = None) -> str:
    """The entry of the signal of this name and number, from 0; without a number, the name to post under."""
    return f"signal:{name}" if number is None else f"signal:{name}/{number}"


def wait_entry(name: str, turn: int) -> str:
    """The entry of a job that waits for a signal of this name, for the `turn`-th time from 0; made before it looks.

    A wait that finds its signal there already has none.
    """
    return f"wait:{name}/{turn}"


def timeout_entry(name: str, turn: int) -> str:
    """The entry of a wait that ended without a signal."""
    return f"timeout:{name}/{turn}"


def is_awaited(entries: Mapping[str, bytes], name: str, number: int) -> bool:
    """Whether the job waits for just this signal: the `number`-th of this name, from 0."""
    before = wait_entry(name, 0).removesuffix("0")
    waits = [int(entry.removeprefix(before)) for entry in entries if _is_numbered(entry, before)]
    missed = [turn for turn in waits if timeout_entry(name, turn) in entries]
    return any(turn not in missed and turn - sum(other < turn for other in missed) == number for turn in waits)


def _is_numbered(entry: str, before: str) -> bool:
    return entry.startswith(before) and entry.removeprefix(before).isdecimal()


class Journal(ABC):
    """Entries of jobs, by name; none ever changes. Belongs to the event loop in which it was opened.

    A *token* (0 to 2**63 - 1) tells attempts of one job apart: a later one has a greater token, so one that was
    overtaken (its lease lapsed while it stood still) is refused. Claiming and writing use a token. `keep` is how many
    seconds the job's entries are kept at least from then on: the longest one asked for counts. All methods may be
    repeated, and may raise `BrokerUnavailable`.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing."""

    @abstractmethod
    async def claim(self, job_id: str, token: int, keep: float) -> Mapping[str, bytes] | None:
        """Work under this token: all entries so far; None when a greater token has been used. One atomic step."""

    @abstractmethod
    async def write(self, job_id: str, token: int, name: str, value: bytes, keep: float) -> bytes | None:
        """Enter a value, unless there is one; returns the one that stands. None when a greater token has been used."""

    @abstractmethod
    async def post(self, job_id: str, name: str, value: bytes, keep: float, post_id: str) -> int:
        """Enter a value under `name/N`, N being the first from 0 that is free; whoever it is: no token is needed.

        `post_id` makes a repetition known: it is answered with the N of the first time.
        """

    @abstractmethod
    async def read(self, job_id: str) -> Mapping[str, bytes]:
        """All entries; empty where there are none (any more)."""

    @abstractmethod
    async def forget(self, job_ids: Sequence[str]) -> int:
        """Delete all of these jobs' entries and tokens; returns for how many jobs there were any."""

    @abstractmethod
    def twin(self) -> Self:
        """An unopened one on the same data, for another event loop or thread."""

    def abandon(self) -> None:  # noqa: B027 -- most have nothing to do
        """As `Broker.abandon`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. May be repeated."""
