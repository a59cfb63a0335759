"""Plain acknowledgements of one priority, as the server's script wants them."""

from __future__ import annotations

from typing import Any

from camora.outcome import JobRecord, Settlement

from camora_redis.keys import Keys
from camora_redis.records import encode_record, milliseconds

__all__ = ["Columns"]


class Columns:
    """A batch, column by column: a table for each job would cost the server more than what it does for the job."""

    __slots__ = ("_entries", "_ids", "_priority", "_records", "_taken", "numbers")

    def __init__(self, priority: int) -> None:
        self.numbers: list[int] = []
        """Which settlements these are."""
        self._priority = priority
        self._entries: list[str] = []
        self._taken: list[int] = []
        self._ids: list[str] = []
        self._records: list[JobRecord | None] = []

    def add(self, number: int, settlement: Settlement) -> None:
        """One more."""
        delivery = settlement.delivery
        receipt = delivery.receipt
        self.numbers.append(number)
        self._entries.append(receipt.entry)
        self._taken.append(receipt.taken)
        self._ids.append(delivery.id)
        self._records.append(settlement.record)

    def packed(self, keys: Keys, blobs: list[bytes]) -> tuple[Any, ...]:
        """The columns; the bytes of records go to the blobs, one for each job."""
        head = (self._priority, self._entries, self._taken, self._ids)
        first = next((record for record in self._records if record is not None), None)
        if first is None:
            return head
        # The name of a record ends with the id of its job.
        beginning = keys.record(first.queue, "")
        place = len(blobs) + 1
        blobs += [b"" if record is None else encode_record(record) for record in self._records]
        return (*head, beginning, place, [0 if record is None else milliseconds(record) for record in self._records])
