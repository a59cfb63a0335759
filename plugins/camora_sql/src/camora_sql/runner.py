"""What statements are run through: a session of our own, or a connection of somebody else's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from camora_sql.dialects.base import Row
from camora_sql.statements import Builder
from camora_sql.wakeup import Topic

__all__ = ["Runner"]

_ROWS = (64, 16, 4, 1)
"""Sizes of an INSERT; a batch is cut into these, so that a few texts serve every size of batch."""
_IDS = (1, 4, 16, 64, 128, 256)
"""Sizes of a list of ids; shorter ones repeat their last id."""


class Runner(ABC):
    """Runs statements. Used in one thread, or one greenlet, only."""

    @abstractmethod
    def rows(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> Sequence[Row]:
        """Run it; all its rows."""

    @abstractmethod
    def change(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> int:
        """Run it; how many rows it changed."""

    @abstractmethod
    def announce(self, topic: Topic) -> None:
        """Once this transaction stands, wake whoever waits for such news."""

    def insert(self, build: Builder, rows: Sequence[Sequence[Any]], tail: Sequence[Any] = ()) -> None:
        """Insert many rows with few statements; `tail` is bound after the rows of each."""
        _in_pieces(lambda values, size: self.change(build, values, size), rows, tail)

    def insert_and_tell(self, build: Builder, rows: Sequence[Sequence[Any]]) -> list[Row]:
        """The same, with a statement that tells; all that it tells."""
        told: list[Row] = []
        _in_pieces(lambda values, size: told.extend(self.rows(build, values, size)), rows)
        return told

    def rows_in(self, build: Builder, ids: Sequence[Any], head: Sequence[Any] = (), *, times: int = 1) -> list[Row]:
        """Run it for all these ids, in pieces; `head` is bound before the ids of each, which are bound `times` over."""
        found: list[Row] = []
        for size, piece in _pieces(ids):
            found += self.rows(build, [*head, *piece * times], size)
        return found

    def change_in(self, build: Builder, ids: Sequence[Any], head: Sequence[Any] = ()) -> int:
        """The same; how many rows were changed."""
        return sum(self.change(build, [*head, *piece], size) for size, piece in _pieces(ids))


def _in_pieces(
    run: Callable[[list[Any], int], object], rows: Sequence[Sequence[Any]], tail: Sequence[Any] = ()
) -> None:
    start = 0
    for size in _ROWS:
        while len(rows) - start >= size:
            values: list[Any] = []
            for row in rows[start : start + size]:
                values += row
            values += tail
            try:
                run(values, size)
            except OverflowError:
                if size == 1:
                    raise
                break  # together they may be too large
            start += size


def _pieces(ids: Sequence[Any]) -> Iterator[tuple[int, list[Any]]]:
    most = _IDS[-1]
    for start in range(0, len(ids), most):
        piece = list(ids[start : start + most])
        size = next(size for size in _IDS if size >= len(piece))
        yield size, piece + piece[-1:] * (size - len(piece))
