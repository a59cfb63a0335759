"""The dead letters: messages that will not run again by themselves, kept whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from camora.outcome import DeadLetter

__all__ = ["DeadLetters"]


class DeadLetters(ABC):
    """Listing, requeueing and purging. Letters enter by `Consumer.settle` with `Action.REJECT`, and only so.

    All methods do I/O, may be repeated, and raise `BrokerUnavailable`.
    """

    @abstractmethod
    async def list(self, *, queue: str | None = None, limit: int = 100, after: str = "") -> Sequence[DeadLetter]:
        """Letters, in order of id, with an id greater than `after`; of one queue or of all."""

    @abstractmethod
    async def get(self, job_id: str) -> DeadLetter | None:
        """One letter."""

    @abstractmethod
    async def requeue(self, job_id: str, *, body: bytes | None = None) -> bool:
        """Put the message back into its queue, due now, under the same id, its deliveries counted from 0.

        Where the store keeps results, too, the record of the job is deleted in the same step.

        `body` replaces the stored bytes (an attempt count started anew). One atomic step: the message is in the
        queue or in the letters, at worst both, never in neither. False when there is no such letter.
        """

    @abstractmethod
    async def purge(self, *, queue: str | None = None, ids: Sequence[str] | None = None) -> int:
        """Delete for good the letters of a queue, or these ids, or (neither given) all; returns how many."""
