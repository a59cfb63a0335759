"""Workflows and their nodes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)

from camora_sql.dialects.base import Dialect
from camora_sql.schema import Tables
from camora_sql.statements.parts import Shape, among, first, many, names, one_of, rows

__all__ = [
    "DELETED",
    "add_feeds",
    "add_nodes",
    "add_waits",
    "begin_again",
    "clear_feeds",
    "clear_gates",
    "clear_nodes",
    "clear_waits",
    "confirm_workflow",
    "delete_cleared",
    "end_nodes",
    "end_waits",
    "ends_feeding",
    "find_workflow",
    "finish_workflow",
    "forget_gates",
    "insert_workflow",
    "known_nodes",
    "list_workflows",
    "lock_over",
    "lock_workflows",
    "nodes_behind",
    "nodes_feeding",
    "nodes_of",
    "open_nodes",
    "passed_of",
    "put_open",
    "put_passed",
    "put_recorded",
    "read_marked",
    "read_nodes",
    "read_workflow",
    "ready_nodes",
    "reopen_nodes",
    "retire",
    "some_over",
    "start_workflow",
]

DELETED = "deleted"
"""The state of a workflow that nobody finds any more, and that goes in steps."""
_MAKING = "new"
"""The state of a row that its own transaction has inserted just now: nobody else ever sees it."""
_SERVERS = ("mysql", "mariadb")


# Workflows


def lock_workflows(dialect: Dialect, size: int) -> Shape:
    """Keep these workflows from all others until the end of the transaction, in order of their ids."""
    t = dialect.tables.workflows
    found = select(t.c.id, t.c.seq, t.c.state, t.c.changed, t.c.until, t.c.nodes, t.c.open)
    # By their ids alone: a small table would be gone through else, and rows of others be waited for.
    for server in _SERVERS:
        found = found.with_hint(t, f"FORCE INDEX ({dialect.tables.prefix}workflows_id)", server)
    return found.where(one_of(t.c.id, "id", size)).order_by(t.c.id).with_for_update(), names("id", size)


def read_workflow(dialect: Dialect, size: int) -> Shape:
    """One as a whole."""
    t = dialect.tables.workflows
    return select(*_shown(t), t.c.plan).where(t.c.id == bindparam("id")), ("id",)


def find_workflow(dialect: Dialect, size: int) -> Shape:
    """The number of one, and until when it is kept."""
    t = dialect.tables.workflows
    return select(t.c.seq, t.c.until).where(t.c.id == bindparam("id")), ("id",)


def list_workflows(dialect: Dialect, size: int) -> Shape:
    """A page of those not changed since a moment: of all (1), or those of one state (2), one end (3), or both (4)."""
    t = dialect.tables.workflows
    page = select(*_shown(t)).where(
        t.c.id > bindparam("after"),
        t.c.changed < bindparam("before"),
        or_(t.c.until.is_(null()), t.c.until > bindparam("now")),
    )
    only = [name for name, bit in (("state", 1), ("status", 2)) if (size - 1) & bit]
    for name in only:
        page = page.where(t.c[name] == bindparam(name))
    order = ("after", "before", "now", *only, "limit")
    return first(page.order_by(t.c.id)), order


def _shown(t: Table) -> list[Any]:
    return [
        t.c[name]
        for name in ("seq", "until", "id", "name", "state", "status", "created", "changed", "finished", "nodes", "open")
    ]


def insert_workflow(dialect: Dialect, size: int) -> Shape:
    """Begin one, unless there is one of this id."""
    t = dialect.tables.workflows
    given = ("id", "name", "created", "changed", "plan")
    values, order = rows(t, 1, given)
    begun: dict[str, Any] = {"state": literal_column(f"'{_MAKING}'"), "status": literal_column("''")}
    begun |= dict.fromkeys(("finished", "nodes", "open"), literal_column("0"))
    return dialect.insert_new(t, [{**values[0], **begun}]), order


def confirm_workflow(dialect: Dialect, size: int) -> Shape:
    """The same, second half: it changes one row if the first has inserted one, and none else."""
    t = dialect.tables.workflows
    mine = (t.c.id == bindparam("known_id"), t.c.state == literal_column(f"'{_MAKING}'"))
    return update(t).values(state=literal_column("'recording'")).where(*mine), ("known_id",)


def _by_seq(t: Table, values: dict[str, Any]) -> Update:
    return update(t).values(values).where(t.c.seq == bindparam("place"))


def put_recorded(dialect: Dialect, size: int) -> Shape:
    """How many nodes it has by now."""
    t = dialect.tables.workflows
    given: dict[str, Any] = {
        "changed": bindparam("new_changed"),
        "nodes": bindparam("new_nodes"),
        "open": bindparam("new_open"),
    }
    return _by_seq(t, given), ("new_changed", "new_nodes", "new_open", "place")


def start_workflow(dialect: Dialect, size: int) -> Shape:
    """It runs."""
    t = dialect.tables.workflows
    given: dict[str, Any] = {
        "state": literal_column("'running'"),
        "changed": bindparam("new_changed"),
        "plan": bindparam("new_plan", type_=t.c.plan.type),
    }
    return _by_seq(t, given), ("new_changed", "new_plan", "place")


def put_open(dialect: Dialect, size: int) -> Shape:
    """How many nodes have not ended, of many workflows that there are."""
    t = dialect.tables.workflows
    values, order = rows(t, size, ("seq", "changed", "open"))
    # What no row takes, because there is one of each number.
    rest: dict[str, Any] = {name: literal_column("''") for name in ("name", "state", "status", "plan")}
    rest |= {name: literal_column("0") for name in ("created", "finished", "nodes")}
    return dialect.upsert(t, [{**value, **rest} for value in values], key="seq", change=("changed", "open")), order


def begin_again(dialect: Dialect, size: int) -> Shape:
    """One that was finished runs."""
    t = dialect.tables.workflows
    again: dict[str, Any] = {
        "state": literal_column("'running'"),
        "status": literal_column("''"),
        "finished": literal_column("0"),
    }
    return _by_seq(t, {**again, "until": null()}), ("place",)


def finish_workflow(dialect: Dialect, size: int) -> Shape:
    """One that ran is finished."""
    t = dialect.tables.workflows
    over: dict[str, Any] = {
        "state": literal_column("'finished'"),
        "status": bindparam("new_status"),
        "changed": bindparam("new_changed"),
        "finished": bindparam("new_finished"),
        "until": bindparam("new_until"),
    }
    order = [f"new_{column.name}" for column in t.c if column.name in over and column.name != "state"]
    return _by_seq(t, over), (*order, "place")


# Nodes


def known_nodes(dialect: Dialect, size: int) -> Shape:
    """Which of these there are."""
    t = dialect.tables.nodes
    return select(t.c.node).where(one_of(t.c.node, "node", size)), names("node", size)


def add_nodes(dialect: Dialect, size: int) -> Shape:
    """New nodes."""
    t = dialect.tables.nodes
    values, order = rows(t, size, ("node", "gate", "feeds", "spec"))
    new: dict[str, Any] = {"run": literal_column("0"), "status": literal_column("''")}
    return dialect.insert_new(t, [{**value, **new} for value in values]), order


def add_feeds(dialect: Dialect, size: int) -> Shape:
    """Which nodes feed which."""
    t = dialect.tables.feeds
    values, order = rows(t, size, ("target", "source"))
    return dialect.insert_new(t, values), order


def add_waits(dialect: Dialect, size: int) -> Shape:
    """Which nodes are waited for by which."""
    t = dialect.tables.waits
    values, order = rows(t, size, ("source", "target"))
    return dialect.insert_new(t, values), order


def read_marked(dialect: Dialect, size: int) -> Shape:
    """How far nodes are, and what they feed."""
    t = dialect.tables.nodes
    return select(t.c.node, t.c.run, t.c.status, t.c.feeds).where(one_of(t.c.node, "node", size)), names("node", size)


def end_nodes(dialect: Dialect, size: int) -> Shape:
    """How nodes ended that there are."""
    t = dialect.tables.nodes
    values, order = rows(t, size, ("node", "status", "outcome"))
    # What no row takes, because there is one of each number.
    rest: dict[str, Any] = {"run": literal_column("0"), "feeds": literal_column("''"), "spec": literal_column("''")}
    return dialect.upsert(t, [{**value, **rest} for value in values], key="node", change=("status", "outcome")), order


def end_waits(dialect: Dialect, size: int) -> Shape:
    """Nobody waits for these nodes any more."""
    t = dialect.tables.waits
    return delete(t).where(one_of(t.c.source, "source", size)), names("source", size)


def reopen_nodes(dialect: Dialect, size: int) -> Shape:
    """These nodes have not ended, and are in their next run."""
    t = dialect.tables.nodes
    again: dict[str, Any] = {
        "run": t.c.run + literal_column("1"),
        "status": literal_column("''"),
        "outcome": literal_column("''"),
    }
    return update(t).values(again).where(one_of(t.c.node, "node", size)), names("node", size)


def read_nodes(dialect: Dialect, size: int) -> Shape:
    """Whole nodes."""
    t = dialect.tables
    return select(*_state(t)).where(one_of(t.nodes.c.node, "node", size)), names("node", size)


def open_nodes(dialect: Dialect, size: int) -> Shape:
    """The same of those that have not ended."""
    t = dialect.tables
    found = select(*_state(t)).where(one_of(t.nodes.c.node, "node", size), t.nodes.c.status == literal_column("''"))
    return found, names("node", size)


def ready_nodes(dialect: Dialect, size: int) -> Shape:
    """The same of those that wait for nothing."""
    t = dialect.tables
    waits = select(t.waits.c.source).where(t.waits.c.target == t.nodes.c.node)
    # From the end: what begins first mostly ends first, and rows that were deleted are in the way for a while.
    last = waits.order_by(t.waits.c.source.desc()).limit(literal_column("1")).offset(literal_column("0"))
    found, order = open_nodes(dialect, size)
    return found.where(last.scalar_subquery().is_(null())), order  # type: ignore[attr-defined]


def _state(t: Tables) -> list[Any]:
    waiting = select(func.count()).select_from(t.waits).where(t.waits.c.target == t.nodes.c.node).scalar_subquery()
    columns = [t.nodes.c[name] for name in ("node", "gate", "run", "status", "feeds", "spec", "outcome")]
    return [*columns, waiting.label("waiting")]


def nodes_of(dialect: Dialect, size: int) -> Shape:
    """A page of the nodes of one workflow."""
    t = dialect.tables
    within = (t.nodes.c.node > bindparam("after"), t.nodes.c.node <= bindparam("last"))
    return _page(t, select(*_state(t)).where(*within), t.nodes.c.node), ("after", "last", *_PAGE)


def nodes_behind(dialect: Dialect, size: int) -> Shape:
    """A page of the nodes behind a gate."""
    t = dialect.tables
    # That there is one is said for the index, which has no others.
    found = select(*_state(t)).where(t.nodes.c.gate.is_not(null()), _beyond(dialect, t.nodes.c.gate, t.nodes.c.node))
    for server in _SERVERS:
        found = found.with_hint(t.nodes, f"FORCE INDEX ({t.prefix}workflow_nodes_gate)", server)
    return _page(t, found, t.nodes.c.gate, t.nodes.c.node), (*_BEYOND, *_PAGE)


def nodes_feeding(dialect: Dialect, size: int) -> Shape:
    """A page of the nodes that feed one."""
    return _feeding(dialect, _state(dialect.tables))


def ends_feeding(dialect: Dialect, size: int) -> Shape:
    """As `nodes_feeding`, but only how they ended."""
    node = dialect.tables.nodes.c
    return _feeding(dialect, [node.node, node.run, node.status, node.outcome])


def _feeding(dialect: Dialect, columns: list[Any]) -> Shape:
    t = dialect.tables
    found = select(*columns).select_from(t.feeds.join(t.nodes, t.nodes.c.node == t.feeds.c.source))
    found = found.where(_beyond(dialect, t.feeds.c.target, t.feeds.c.source))
    for server in _SERVERS:
        # In the order of the list, and no further than needed.
        found = found.prefix_with("STRAIGHT_JOIN", dialect=server).with_hint(t.feeds, "FORCE INDEX (PRIMARY)", server)
    return _page(t, found, t.feeds.c.target, t.feeds.c.source), (*_BEYOND, *_PAGE)


_BEYOND = ("of", "after", "up_to", "last")


def _beyond(dialect: Dialect, of: ColumnElement[Any], column: ColumnElement[Any]) -> ColumnElement[bool]:
    """The part of an index (`of`, `column`) that lies behind a place, and belongs to the same."""
    one, after, same, last = (bindparam(name, type_=of.type) for name in _BEYOND)
    if not dialect.tables.partial:
        # Here pairs are not looked for in an index; but the index can be named.
        return and_(of == one, column > after, of == same, column <= last)
    # As pairs: else a planner that does not know yet how many there are sorts all of them for each page, or walks
    # through others in the order that is wanted.
    return and_(tuple_(of, column) > tuple_(one, after), tuple_(of, column) <= tuple_(same, last))


_PAGE = ("ended", "well", "limit")


def _page(t: Tables, found: Select[Any], *by: ColumnElement[Any]) -> Select[Any]:
    """Those that have not ended, or with `ended` 1 all; of them those that have ended badly, or with `well` 1 all."""
    # In these words a planner takes it for what most rows are.
    ended, well = (bindparam(name, type_=Integer) != literal_column("0") for name in ("ended", "well"))
    status = t.nodes.c.status
    badly = status.not_in([literal_column("''"), literal_column("'succeeded'")])
    return first(found.where(or_(ended, status == literal_column("''")), or_(well, badly)).order_by(*by))


# Gates


def passed_of(dialect: Dialect, size: int) -> Shape:
    """How far these workflows' gates were passed."""
    t = dialect.tables.gates
    return select(t.c.gate, t.c.passed).where(_within(t.c.gate, size)), _ranges(size)


def put_passed(dialect: Dialect, size: int) -> Shape:
    """How far a gate was passed, if that is further than before."""
    t = dialect.tables.gates
    values, order = rows(t, 1, ("gate", "passed"))
    further = t.c.passed < bindparam("least", type_=Integer)
    return dialect.upsert(t, values, key="gate", change=("passed",), where=further), (*order, "least")


def forget_gates(dialect: Dialect, size: int) -> Shape:
    """That these gates were passed."""
    t = dialect.tables.gates
    return delete(t).where(one_of(t.c.gate, "gate", size)), names("gate", size)


# Deleting


def _retired() -> dict[str, Any]:
    return {"id": null(), "state": literal_column(f"'{DELETED}'"), "until": literal_column("0")}


def retire(dialect: Dialect, size: int) -> Shape:
    """Nobody finds these any more."""
    t = dialect.tables.workflows
    return update(t).values(_retired()).where(one_of(t.c.seq, "seq", size)), names("seq", size)


def some_over(dialect: Dialect, size: int) -> Shape:
    """Some whose time is over, those that were deleted first."""
    t = dialect.tables.workflows
    return _over(t, select(t.c.seq, t.c.state)), ("now", "limit")


def lock_over(dialect: Dialect, size: int) -> Shape:
    """The same, kept from others; those that others have are passed over."""
    t = dialect.tables.workflows
    return _over(t, select(t.c.seq, t.c.state)).with_for_update(skip_locked=True), ("now", "limit")


def _over(t: Table, found: Select[Any]) -> Select[Any]:
    return first(found.where(t.c.until <= bindparam("now")).order_by(t.c.until))


def _within(column: ColumnElement[Any], size: int) -> ColumnElement[bool]:
    firsts, lasts = many("first", size), many("last", size)
    return or_(*(and_(column >= lower, column <= upper) for lower, upper in zip(firsts, lasts, strict=True)))


def _ranges(size: int) -> list[str]:
    return [name for pair in zip(names("first", size), names("last", size), strict=True) for name in pair]


def clear_nodes(dialect: Dialect, size: int) -> Shape:
    """Delete some nodes of a workflow."""
    t = dialect.tables.nodes
    return _clear(dialect, t, t.c.node)


def clear_feeds(dialect: Dialect, size: int) -> Shape:
    """Delete some of what feeds what."""
    t = dialect.tables.feeds
    return _clear(dialect, t, t.c.target, t.c.source)


def clear_waits(dialect: Dialect, size: int) -> Shape:
    """Delete some of what waits for what."""
    t = dialect.tables.waits
    return _clear(dialect, t, t.c.source, t.c.target)


def clear_gates(dialect: Dialect, size: int) -> Shape:
    """Delete some of what is known of its gates."""
    t = dialect.tables.gates
    return _clear(dialect, t, t.c.gate)


def _clear(dialect: Dialect, t: Table, *key: ColumnElement[Any]) -> Shape:
    within = (key[0] >= bindparam("first"), key[0] <= bindparam("last"))
    found = first(select(*key).where(*within).order_by(*key))
    return delete(t).where(among(dialect, found, *key)), ("first", "last", "limit")


def delete_cleared(dialect: Dialect, size: int) -> Shape:
    """Delete workflows in which nothing is left."""
    t = dialect.tables.workflows
    cleared = (one_of(t.c.seq, "seq", size), t.c.state == literal_column(f"'{DELETED}'"))
    return delete(t).where(*cleared), names("seq", size)
