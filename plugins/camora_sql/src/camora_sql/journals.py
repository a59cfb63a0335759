"""The journals of jobs that are done in steps, in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

import attrs
from camora.errors import EncodeError
from camora.interfaces.journal import Journal

from camora_sql.dialects.base import Need
from camora_sql.lengths import LONGEST_ID, LONGEST_KEY, check_name
from camora_sql.link import Link
from camora_sql.session import Session
from camora_sql.statements import journals as statements
from camora_sql.store import Store
from camora_sql.upkeep import Upkeep

__all__ = ["SqlJournal", "prune_journals"]

R = TypeVar("R")

_FOREVER = 2**53
"""Milliseconds; what is kept for longer is kept as long."""
_STEP = 100
"""Journals that one transaction deletes at most: others want to write, too."""
_LOOK = 64
"""Numbers of posts that are looked at together."""


@attrs.define
class _Page:
    """The head of a journal, which this transaction keeps from others."""

    seq: int
    token: int | None
    until: int

    def admits(self, token: int) -> bool:
        """Whether no greater token has been used."""
        if self.token is not None and token < self.token:
            return False
        self.token = token
        return True


class SqlJournal(Journal):
    """Each method is one transaction, or one look. What was entered is there after a power failure, too.

    All that write raise `EncodeError` for what cannot be stored: ids of more than 255 characters, names of more than
    512.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"SqlJournal({store.dialect.label})")
        self._upkeep = Upkeep(self._link, lambda session: prune_journals(session, store), "journals")

    def __repr__(self) -> str:
        return f"SqlJournal({self._store.dialect.label!r})"

    async def open(self) -> None:
        """Connect; make or check the schema."""
        await self._link.open()

    async def claim(self, job_id: str, token: int, keep: float) -> Mapping[str, bytes] | None:
        """One transaction."""
        self._upkeep.perhaps()

        def claim(session: Session, page: _Page) -> dict[str, bytes] | None:
            if not page.admits(token):
                return None
            self._keep(session, page, keep)
            return dict(session.rows(statements.entries_of, (page.seq,)))  # type: ignore[arg-type]

        return await self._write(job_id, keep, claim)

    async def write(self, job_id: str, token: int, name: str, value: bytes, keep: float) -> bytes | None:
        """One transaction."""
        check_name("name", name, LONGEST_KEY)

        def write(session: Session, page: _Page) -> bytes | None:
            if not page.admits(token):
                return None
            self._keep(session, page, keep)
            session.change(statements.enter, (page.seq, name, None, value))
            [(stands,)] = session.rows(statements.entry, (page.seq, name))
            return bytes(stands)

        return await self._write(job_id, keep, write)

    async def post(self, job_id: str, name: str, value: bytes, keep: float, post_id: str) -> int:
        """One transaction."""
        check_name("name", f"{name}/{2**31}", LONGEST_KEY)
        check_name("post_id", post_id, LONGEST_ID)

        def post(session: Session, page: _Page) -> int:
            self._keep(session, page, keep)
            for (known,) in session.rows(statements.posts_of, (page.seq, post_id)):
                posted, _, number = known.rpartition("/")
                if posted == name:
                    return int(number)
            free = _first_free(session, page.seq, name)
            session.change(statements.enter, (page.seq, f"{name}/{free}", post_id, value))
            return free

        return await self._write(job_id, keep, post)

    async def read(self, job_id: str) -> Mapping[str, bytes]:
        """One look."""

        def read(session: Session) -> dict[str, bytes]:
            for seq, until in session.rows(statements.find_journal, (job_id,)):
                if until > self._store.now():
                    return dict(session.rows(statements.entries_of, (seq,)))  # type: ignore[arg-type]
            return {}

        return await self._link.read(read)

    async def forget(self, job_ids: Sequence[str]) -> int:
        """One transaction."""
        if not job_ids:
            return 0

        def forget(session: Session) -> int:
            rows = session.rows_in(statements.lock_journals, sorted(set(job_ids)))
            _delete(session, [row[1] for row in rows])
            now = self._store.now()
            return sum(row[3] > now for row in rows)

        return await self._link.write(forget, Need.NONE)

    async def _write(self, job_id: str, keep: float, work: Callable[[Session, _Page], R]) -> R:
        check_name("job_id", job_id, LONGEST_ID)

        def write(session: Session) -> R:
            return work(session, self._page(session, job_id, keep))

        with _storable():
            return await self._link.write(write)

    def _page(self, session: Session, job_id: str, keep: float) -> _Page:
        now = self._store.now()
        rows = session.rows_in(statements.lock_journals, [job_id])
        while not rows:
            session.change(statements.begin_journal, (job_id, self._until(keep)))
            rows = session.rows_in(statements.lock_journals, [job_id])
        [(_, seq, token, until)] = rows
        if until <= now:
            # Nobody has pruned it yet.
            session.change_in(statements.delete_entries, [seq])
            return _Page(seq, None, 0)
        return _Page(seq, token, until)

    def _until(self, keep: float) -> int:
        return self._store.now() + round(min(keep * 1000, _FOREVER))

    def _keep(self, session: Session, page: _Page, keep: float) -> None:
        page.until = max(page.until, self._until(keep))
        session.change(statements.put_journal, (page.token, page.until, page.seq))

    def twin(self) -> Self:
        """Another one on the same database, with a connection of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """End the thread of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """End the thread and its connection."""
        await self._link.close()


def prune_journals(session: Session, store: Store) -> bool:
    """Delete some journals whose time is over; True when there is more than one step takes. Blocks, as sessions do."""
    values = (store.now(), _STEP)
    if not session.read(lambda session: session.rows(statements.some_journals_over, values)):
        return False

    def step(session: Session) -> bool:
        rows = session.rows(statements.lock_journals_over, values)
        _delete(session, [row[0] for row in rows])
        return len(rows) == _STEP

    return session.write(step, Need.NONE)


def _delete(session: Session, seqs: Sequence[int]) -> None:
    session.change_in(statements.delete_entries, seqs)
    session.change_in(statements.delete_journals, seqs)


def _first_free(session: Session, seq: int, name: str) -> int:
    """The first number that no entry of this name has."""

    def taken(numbers: Sequence[int]) -> set[int]:
        rows = session.rows_in(statements.taken_names, [f"{name}/{number}" for number in numbers], (seq,))
        return {int(row[0].rpartition("/")[2]) for row in rows}

    start = 0
    while True:
        numbers = range(start, start + _LOOK)
        if free := sorted(set(numbers) - taken(numbers)):
            return free[0]
        start += _LOOK


@contextmanager
def _storable() -> Iterator[None]:
    """Raises `EncodeError` for values that no database stores."""
    try:
        yield
    except (OverflowError, UnicodeError) as error:
        raise EncodeError(f"a value of a journal cannot be stored: {error}") from error
