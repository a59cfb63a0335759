"""Every statement, written in SQLAlchemy Core and compiled once to the text that the driver executes.

A *builder* makes a statement for `size` rows, ids or queues, and says in which order its values are bound. What
databases say differently, they say in their `Dialect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    union_all,
    update,
)

from camora_sql.dialects.base import Dialect
from camora_sql.schema import State, dead_letters, done, facts, jobs, keys, queues, results

__all__ = ["Builder", "Shape", "Statements"]

Shape = tuple[Executable, Sequence[str]]
Builder = Callable[[Dialect, int], Shape]


class Statements:
    """The texts of one dialect's statements, compiled when they are first asked for. Safe to use from any thread."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._texts: dict[tuple[Builder, int], str] = {}

    def __call__(self, build: Builder, size: int = 1) -> str:
        """The text for this many rows, ids or queues."""
        text = self._texts.get((build, size))
        if text is None:
            text = self._texts[build, size] = self._compile(build, size)
        return text

    def _compile(self, build: Builder, size: int) -> str:
        statement, order = build(self._dialect, size)
        compiled = statement.compile(dialect=self._dialect.compiler())  # type: ignore[attr-defined]
        # A builder that states another order than its statement has would bind values to wrong columns.
        assert list(compiled.positiontup or ()) == list(order), f"{build.__name__}: {compiled.positiontup}"
        return str(compiled)


# Parts


def _state(state: int) -> ColumnElement[bool]:
    # Spelt out, not bound: only then does the planner see that a partial index fits.
    return jobs.c.state == literal_column(str(state))


def _many(name: str, size: int) -> list[BindParameter[Any]]:
    return [bindparam(f"{name}_{place}") for place in range(size)]


def _names(name: str, size: int) -> list[str]:
    return [f"{name}_{place}" for place in range(size)]


def _rows(table: Table, size: int, columns: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    names = list(columns)
    values = [{name: bindparam(f"{name}_{place}", type_=table.c[name].type) for name in names} for place in range(size)]
    return values, [f"{name}_{place}" for place in range(size) for name in names]


def _is_open(name: BindParameter[Any]) -> ColumnElement[bool]:
    paused = select(literal_column("1")).where(queues.c.name == name, queues.c.paused == literal_column("1"))
    return not_(exists(paused))


def _one_of(column: ColumnElement[Any], name: str, size: int) -> ColumnElement[bool]:
    return column.in_(_many(name, size))


def _first(found: Select[Any], limit: str = "limit") -> Select[Any]:
    # The offset is spelt out because SQLite's compiler binds one where none is given.
    return found.limit(bindparam(limit)).offset(literal_column("0"))


# Publishing

JOB_COLUMNS = ("id", "queue", "state", "priority", "due", "expires", "key", "key_ttl", "task", "body")


def insert_jobs(dialect: Dialect, size: int) -> Shape:
    """New messages; one whose id is there already is passed over."""
    values, order = _rows(jobs, size, JOB_COLUMNS)
    return dialect.insert_new(jobs, values), order


def is_job(dialect: Dialect, size: int) -> Shape:
    """Which of these ids are unfinished."""
    return select(jobs.c.id).where(_one_of(jobs.c.id, "id", size)), _names("id", size)


def is_done(dialect: Dialect, size: int) -> Shape:
    """Which of these ids have a tombstone."""
    return select(done.c.id).where(_one_of(done.c.id, "id", size)), _names("id", size)


def is_recorded(dialect: Dialect, size: int) -> Shape:
    """Which of these ids have a finished record."""
    final = results.c.final == literal_column("1")
    return select(results.c.id).where(_one_of(results.c.id, "id", size), final), _names("id", size)


def is_dead(dialect: Dialect, size: int) -> Shape:
    """Which of these ids are dead letters."""
    return select(dead_letters.c.id).where(_one_of(dead_letters.c.id, "id", size)), _names("id", size)


def take_key(dialect: Dialect, size: int) -> Shape:
    """Take a key that is free, or whose time is over."""
    made = {"key": bindparam("key"), "job": bindparam("job"), "until": literal_column("NULL")}
    free = keys.c.until <= bindparam("now")
    return dialect.upsert(keys, [made], key="key", change=("job", "until"), where=free), ("key", "job", "now")


def holder_of_key(dialect: Dialect, size: int) -> Shape:
    """The job that holds a key."""
    return select(keys.c.job).where(keys.c.key == bindparam("key")), ("key",)


def free_key(dialect: Dialect, size: int) -> Shape:
    """Its job has ended, and no time was asked for."""
    return delete(keys).where(keys.c.key == bindparam("key"), keys.c.job == bindparam("job")), ("key", "job")


def keep_key(dialect: Dialect, size: int) -> Shape:
    """Its job has ended: taken until a moment."""
    held = (keys.c.key == bindparam("of"), keys.c.job == bindparam("job_"), keys.c.until.is_(None))
    return update(keys).values(until=bindparam("end")).where(*held), ("end", "of", "job_")


def retake_key(dialect: Dialect, size: int) -> Shape:
    """Its job is unfinished again: its own, unless another one has it by now."""
    made = {"key": bindparam("key"), "job": bindparam("job"), "until": literal_column("NULL")}
    free = or_(keys.c.until <= bindparam("now"), keys.c.job == bindparam("mine"))
    return dialect.upsert(keys, [made], key="key", change=("job", "until"), where=free), ("key", "job", "now", "mine")


# Receiving


def outlook(dialect: Dialect, size: int) -> Shape:
    """Whether these queues have anything ready, when the next message is due, and when the next lease lapses."""
    looks = []
    for name in _many("queue", size):
        one = select(literal_column("1")).select_from(jobs).where(_state(State.READY), jobs.c.queue == name)
        looks.append(and_(_is_open(name), exists(one)))
    order = [name for name in _names("queue", size) for _ in range(2)]
    next_due = select(func.min(jobs.c.due)).where(_state(State.SCHEDULED))
    next_lapse = select(func.min(jobs.c.lease_until)).where(_state(State.LEASED))
    return select(or_(*looks), next_due.scalar_subquery(), next_lapse.scalar_subquery()), order


def promote(dialect: Dialect, size: int) -> Shape:
    """Make ready what has come due."""
    came = select(jobs.c.seq).where(_state(State.SCHEDULED), jobs.c.due <= bindparam("now"))
    found = _first(came.order_by(jobs.c.due))
    return update(jobs).values(state=literal_column(str(State.READY))).where(jobs.c.seq.in_(found)), ("now", "limit")


_UNLENT: dict[str, Any] = {
    "lease_until": literal_column("0"),
    "receipt": literal_column("0"),
    "worker": literal_column("''"),
}


def lapse(dialect: Dialect, size: int) -> Shape:
    """Make ready what was lent, and whose lease is over."""
    over = select(jobs.c.seq).where(_state(State.LEASED), jobs.c.lease_until <= bindparam("moment"))
    found = _first(over.order_by(jobs.c.lease_until))
    back = {"state": literal_column(str(State.READY)), **_UNLENT}
    return update(jobs).values(back).where(jobs.c.seq.in_(found)), ("moment", "limit")


def claim(dialect: Dialect, size: int) -> Shape:
    """Lend out the most urgent messages of these queues."""
    columns = (jobs.c.seq, jobs.c.priority, jobs.c.due)
    urgent = (jobs.c.priority.desc(), jobs.c.due, jobs.c.seq)
    parts, order = [], ["lease_until", "receipt", "worker"]
    for place, name in enumerate(_many("queue", size)):
        ready = select(*columns).where(_state(State.READY), jobs.c.queue == name, _is_open(name))
        # Each queue by itself, so that its part of the index is read in order and no further than needed.
        parts.append(select(_first(ready.order_by(*urgent), f"limit_{place}").subquery()))
        order += [f"queue_{place}", f"queue_{place}", f"limit_{place}"]
    if size == 1:
        found = select(parts[0].subquery().c.seq)
    else:
        together = union_all(*parts).subquery()
        best = (together.c.priority.desc(), together.c.due, together.c.seq)
        found = _first(select(together.c.seq).order_by(*best))
        order.append("limit")
    lent = {
        "state": literal_column(str(State.LEASED)),
        "lease_until": bindparam("lease_until"),
        "receipt": bindparam("receipt"),
        "worker": bindparam("worker"),
        "deliveries": jobs.c.deliveries + literal_column("1"),
    }
    answer = (*columns, jobs.c.id, jobs.c.queue, jobs.c.body, jobs.c.deliveries, jobs.c.key, jobs.c.key_ttl)
    return update(jobs).values(lent).where(jobs.c.seq.in_(found)).returning(*answer), order


# Settling


def _held(seq: str = "seq", receipt: str = "token") -> ColumnElement[bool]:
    return and_(jobs.c.seq == bindparam(seq), jobs.c.receipt == bindparam(receipt))


def delete_held(dialect: Dialect, size: int) -> Shape:
    """End messages, if this token still holds them."""
    held = (jobs.c.receipt == bindparam("token"), _one_of(jobs.c.seq, "seq", size))
    return delete(jobs).where(*held), ("token", *_names("seq", size))


def still_held(dialect: Dialect, size: int) -> Shape:
    """Which of these messages this token still holds."""
    held = (jobs.c.receipt == bindparam("token"), _one_of(jobs.c.seq, "seq", size))
    return select(jobs.c.seq).where(*held), ("token", *_names("seq", size))


def read_held(dialect: Dialect, size: int) -> Shape:
    """What a dead letter has to remember of a message."""
    return select(jobs.c.priority, jobs.c.expires, jobs.c.task).where(_held()), ("seq", "token")


def retry_held(dialect: Dialect, size: int) -> Shape:
    """Replace a message by its next attempt."""
    names = ("queue", "state", "priority", "due", "expires", "key", "key_ttl", "task", "body")
    again = {name: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in names}
    statement = update(jobs).values({**again, "deliveries": literal_column("0"), **_UNLENT}).where(_held())
    # Columns are set in the order of the table, whatever the order they are named in.
    order = [f"new_{column.name}" for column in jobs.c if column.name in again]
    return statement, (*order, "seq", "token")


def release_held(dialect: Dialect, size: int) -> Shape:
    """Give a message back."""
    refunded = jobs.c.deliveries - bindparam("refund")
    back = {"state": bindparam("new_state"), "due": bindparam("new_due"), "deliveries": refunded, **_UNLENT}
    return update(jobs).values(back).where(_held()), ("new_state", "new_due", "refund", "seq", "token")


def release_now(dialect: Dialect, size: int) -> Shape:
    """Give a message back to its old place in the order."""
    refunded = jobs.c.deliveries - bindparam("refund")
    back = {"state": literal_column(str(State.READY)), "deliveries": refunded, **_UNLENT}
    return update(jobs).values(back).where(_held()), ("refund", "seq", "token")


def bury(dialect: Dialect, size: int) -> Shape:
    """A dead letter, in place of one of the same id."""
    values, order = _rows(dead_letters, 1, dead_letters.c.keys())
    change = tuple(name for name in dead_letters.c.keys() if name != "id")
    return dialect.upsert(dead_letters, values, key="id", change=change), order


def remember(dialect: Dialect, size: int) -> Shape:
    """Tombstones."""
    values, order = _rows(done, size, ("id", "until"))
    return dialect.upsert(done, values, key="id", change=("until",)), order


# Leases


def extend_held(dialect: Dialect, size: int) -> Shape:
    """Make leases last longer, if this token still holds them."""
    held = (jobs.c.receipt == bindparam("token"), _one_of(jobs.c.seq, "seq", size), _state(State.LEASED))
    until = {"lease_until": bindparam("lease_until")}
    return update(jobs).values(until).where(*held), ("lease_until", "token", *_names("seq", size))


def cancelled(dialect: Dialect, size: int) -> Shape:
    """All running messages that are to be cancelled: mostly none, found in an index of their own."""
    flagged = (jobs.c.cancel == literal_column("1"), _state(State.LEASED))
    return select(jobs.c.seq, jobs.c.receipt).where(*flagged), ()


# Records

RECORD_COLUMNS = tuple(results.c.keys())


def put_records(dialect: Dialect, size: int) -> Shape:
    """Records, each unless there is a finished one whose time is not over."""
    values, order = _rows(results, size, RECORD_COLUMNS)
    change = tuple(name for name in RECORD_COLUMNS if name != "id")
    open_ = or_(results.c.final == literal_column("0"), results.c.expires <= bindparam("now"))
    return dialect.upsert(results, values, key="id", change=change, where=open_), (*order, "now")


def read_records(dialect: Dialect, size: int) -> Shape:
    """Whole records."""
    return select(*results.c).where(_one_of(results.c.id, "id", size)), _names("id", size)


def read_finished(dialect: Dialect, size: int) -> Shape:
    """Whole records, if they are finished."""
    final = results.c.final == literal_column("1")
    return select(*results.c).where(_one_of(results.c.id, "id", size), final), _names("id", size)


def delete_records(dialect: Dialect, size: int) -> Shape:
    """Forget records that are not past their time."""
    known = (results.c.expires > bindparam("now"), _one_of(results.c.id, "id", size))
    return delete(results).where(*known), ("now", *_names("id", size))


# Pruning


def prune_results(dialect: Dialect, size: int) -> Shape:
    """Delete some records whose time is over."""
    return _prune(results, results.c.id, results.c.expires)


def prune_done(dialect: Dialect, size: int) -> Shape:
    """Delete some tombstones whose time is over."""
    return _prune(done, done.c.id, done.c.until)


def prune_keys(dialect: Dialect, size: int) -> Shape:
    """Delete some keys that are free."""
    return _prune(keys, keys.c.key, keys.c.until)


def _prune(table: Table, key: ColumnElement[Any], until: ColumnElement[Any]) -> Shape:
    over = _first(select(key).where(until <= bindparam("now")).order_by(until))
    return delete(table).where(key.in_(over)), ("now", "limit")


# Inspection


def count_jobs(dialect: Dialect, size: int) -> Shape:
    """Messages by queue and state."""
    return select(jobs.c.queue, jobs.c.state, func.count()).group_by(jobs.c.queue, jobs.c.state), ()


def count_letters(dialect: Dialect, size: int) -> Shape:
    """Dead letters by queue."""
    return select(dead_letters.c.queue, func.count()).group_by(dead_letters.c.queue), ()


_SHOWN = (jobs.c.id, jobs.c.task, jobs.c.queue, jobs.c.state, jobs.c.due, jobs.c.deliveries, jobs.c.worker)


def find_job(dialect: Dialect, size: int) -> Shape:
    """One message, with its body."""
    return select(*_SHOWN, jobs.c.body).where(jobs.c.id == bindparam("id")), ("id",)


def list_jobs(dialect: Dialect, size: int) -> Shape:
    """A page of the messages of a queue."""
    page = select(*_SHOWN).where(jobs.c.queue == bindparam("queue"), jobs.c.id > bindparam("after"))
    return _first(page.order_by(jobs.c.id)), ("queue", "after", "limit")


def read_for_cancel(dialect: Dialect, size: int) -> Shape:
    """Where a message lies that is to be cancelled."""
    columns = (jobs.c.seq, jobs.c.state, jobs.c.lease_until, jobs.c.key, jobs.c.key_ttl)
    return select(*columns).where(jobs.c.id == bindparam("id")), ("id",)


def flag(dialect: Dialect, size: int) -> Shape:
    """Ask a message's worker to cancel it."""
    return update(jobs).values(cancel=literal_column("1")).where(jobs.c.seq == bindparam("place")), ("place",)


def delete_jobs(dialect: Dialect, size: int) -> Shape:
    """Delete messages, whoever holds them."""
    return delete(jobs).where(_one_of(jobs.c.seq, "seq", size)), _names("seq", size)


def some_ready(dialect: Dialect, size: int) -> Shape:
    """Some messages of a queue that are ready."""
    return _some_of_queue(State.READY)


def some_scheduled(dialect: Dialect, size: int) -> Shape:
    """Some messages of a queue that are not due."""
    return _some_of_queue(State.SCHEDULED)


def _some_of_queue(state: int) -> Shape:
    found = select(jobs.c.seq, jobs.c.id, jobs.c.key, jobs.c.key_ttl)
    return _first(found.where(_state(state), jobs.c.queue == bindparam("queue"))), ("queue", "limit")


def set_paused(dialect: Dialect, size: int) -> Shape:
    """Pause a queue, or let it go on."""
    made = {"name": bindparam("name"), "paused": bindparam("paused")}
    return dialect.upsert(queues, [made], key="name", change=("paused",)), ("name", "paused")


def paused_queues(dialect: Dialect, size: int) -> Shape:
    """Names of all paused queues."""
    return select(queues.c.name).where(queues.c.paused == literal_column("1")).order_by(queues.c.name), ()


# Dead letters

LETTER_COLUMNS = ("id", "queue", "task", "body", "reason", "error", "attempts", "deliveries", "died")


def list_letters(dialect: Dialect, size: int) -> Shape:
    """A page of all letters."""
    page = select(*(dead_letters.c[name] for name in LETTER_COLUMNS)).where(dead_letters.c.id > bindparam("after"))
    return _first(page.order_by(dead_letters.c.id)), ("after", "limit")


def list_letters_of(dialect: Dialect, size: int) -> Shape:
    """A page of a queue's letters."""
    page = select(*(dead_letters.c[name] for name in LETTER_COLUMNS))
    page = page.where(dead_letters.c.queue == bindparam("queue"), dead_letters.c.id > bindparam("after"))
    return _first(page.order_by(dead_letters.c.id)), ("queue", "after", "limit")


def read_letter(dialect: Dialect, size: int) -> Shape:
    """One letter."""
    return select(*(dead_letters.c[name] for name in LETTER_COLUMNS)).where(
        dead_letters.c.id == bindparam("id")
    ), ("id",)


def requeue_letter(dialect: Dialect, size: int) -> Shape:
    """Make a message of a letter again."""
    letter = dead_letters.c
    new = func.coalesce(bindparam("body", type_=letter.body.type), letter.body)
    columns = (letter.id, letter.queue, literal_column(str(State.READY)), letter.priority, bindparam("due"))
    rest = (letter.expires, letter.key, letter.key_ttl, letter.job_task, new)
    found = select(*columns, *rest).where(letter.id == bindparam("id"))
    return insert(jobs).from_select(list(JOB_COLUMNS), found), ("due", "body", "id")


def key_of_letter(dialect: Dialect, size: int) -> Shape:
    """The key a letter's message had."""
    return select(dead_letters.c.key).where(dead_letters.c.id == bindparam("id")), ("id",)


def delete_letters(dialect: Dialect, size: int) -> Shape:
    """Delete letters."""
    return delete(dead_letters).where(_one_of(dead_letters.c.id, "id", size)), _names("id", size)


def some_letters(dialect: Dialect, size: int) -> Shape:
    """Ids of some letters."""
    return _first(select(dead_letters.c.id)), ("limit",)


def some_letters_of(dialect: Dialect, size: int) -> Shape:
    """Ids of some letters of a queue."""
    return _first(select(dead_letters.c.id).where(dead_letters.c.queue == bindparam("queue"))), ("queue", "limit")


def letters_among(dialect: Dialect, size: int) -> Shape:
    """Which of these ids are letters, and of which queue."""
    found = select(dead_letters.c.id, dead_letters.c.queue)
    return found.where(_one_of(dead_letters.c.id, "id", size)), _names("id", size)


# Facts


def read_fact(dialect: Dialect, size: int) -> Shape:
    """One fact about the database."""
    return select(facts.c.value).where(facts.c.name == bindparam("name")), ("name",)


def write_fact(dialect: Dialect, size: int) -> Shape:
    """Note a fact."""
    made = {"name": bindparam("name"), "value": bindparam("value")}
    return dialect.upsert(facts, [made], key="name", change=("value",)), ("name", "value")


def end_leases(dialect: Dialect, size: int) -> Shape:
    """Let every lease lapse: they are of a time that this machine's clock knows nothing of."""
    return update(jobs).values(lease_until=literal_column("0")).where(_state(State.LEASED)), ()
