"""Limits that hold across all workers: how many starts in a time, how many at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import msgspec

from camora.limits import Limit

__all__ = ["Ask", "Limit", "LimitUse", "Limits"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who wants to start. `holder` is unique for each attempt: it is who holds the slots."""

    holder: str
    limits: tuple[Limit, ...]


class LimitUse(msgspec.Struct, frozen=True, kw_only=True):
    """How far a limit is used up. `used` counts grants of the window, or slots held."""

    name: str
    used: int
    holders: tuple[str, ...] = ()
    """Who holds slots; empty for a rate."""


class Limits(ABC):
    """Counts grants in a store that all workers share. Belongs to the event loop in which it was opened.

    The store's clock decides where it has one. All methods may raise `BrokerUnavailable`.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing."""

    @abstractmethod
    async def take(self, asks: Sequence[Ask], *, lease: float) -> Sequence[float]:
        """Grant each ask all of its limits or none, in order; one atomic step for each ask, or for all.

        Answers 0.0 for a grant, else the seconds after which asking again makes sense (for a rate: when the window
        has room again; for slots, when the oldest lease lapses at the latest, and at most 1 s). Slots are held for
        `lease` seconds, renewed by `keep`. A holder that asks again for a slot it holds is granted it again, and is
        counted once. After a lost answer one may ask again: a rate is then charged twice, and comes out lower than
        allowed, never higher.
        """

    @abstractmethod
    async def keep(self, holders: Sequence[str], *, lease: float) -> Sequence[bool]:
        """Hold the slots for `lease` seconds from now; False for a holder that has none any more. May be repeated."""

    @abstractmethod
    async def give_back(self, holders: Sequence[str]) -> None:
        """Free the slots of these holders. Rates are not given back: the start has happened. May be repeated."""

    @abstractmethod
    async def usage(self, names: Sequence[str]) -> Sequence[LimitUse]:
        """How far these limits are used up now, in order; a name that nobody used has 0."""

    @abstractmethod
    def twin(self) -> Self:
        """An unopened one on the same data, for another event loop or thread."""

    def abandon(self) -> None:  # noqa: B027 -- most have nothing to do
        """As `Broker.abandon`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections; slots stay held until their lease lapses. May be repeated."""
