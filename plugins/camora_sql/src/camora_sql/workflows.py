"""Workflows in tables, for the workers of any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from camora.errors import EncodeError
from camora.interfaces.workflows import START, Mark, Marked, Node, NodeState, WorkflowRecord, WorkflowStore

from camora_sql.clearing import STEP, prune_workflows
from camora_sql.dialects.base import Need
from camora_sql.ending import EndCall, end, ended_from, feeds_from, feeds_to, state_from
from camora_sql.holding import Held, hold
from camora_sql.lengths import LONGEST_ID, check_name
from camora_sql.link import Link
from camora_sql.numbering import MOST_NODES, bounds, index_of, is_index, number, workflow_of
from camora_sql.records import plain
from camora_sql.session import Session
from camora_sql.statements import workflows as statements
from camora_sql.store import Store
from camora_sql.upkeep import Upkeep

__all__ = ["SqlWorkflowStore"]

R = TypeVar("R")

_FOREVER = 2**53
"""Milliseconds; what is kept for longer is kept as long."""
_AT_ONCE = 16
"""Workflows whose gates are read together."""


class SqlWorkflowStore(WorkflowStore):
    """Each method is one transaction, or one look; but `delete` goes on, in small ones, after it has taken effect.

    `need`: what a power failure may undo of ends. Where the jobs are in the same database, it undoes their ends, too,
    and they end again; else it must not undo anything.
    """

    def __init__(self, store: Store, need: Need = Need.KEPT) -> None:
        self._store = store
        self._need = need
        self._link = Link(store, f"SqlWorkflowStore({store.dialect.label})")
        self._upkeep = Upkeep(self._link, self._prune, "workflows")

    def __repr__(self) -> str:
        return f"SqlWorkflowStore({self._store.dialect.label!r})"

    async def open(self) -> None:
        """Connect; make or check the schema."""
        await self._link.open()

    # Recording

    async def create(self, record: WorkflowRecord) -> bool:
        """One transaction. Raises `EncodeError` for an id of more than 255 characters."""
        check_name("job_id", record.id, LONGEST_ID)
        self._upkeep.perhaps()
        changed = max(record.created, record.changed)
        values = (record.id, plain(record.name), record.created, changed, record.plan)

        def create(session: Session) -> bool:
            known = session.rows_in(statements.lock_workflows, [record.id])
            for _, seq, _, _, until, *_ in known:
                if until is None or until > self._store.now():
                    return False
                # It is past its time, and the id is free.
                session.change_in(statements.retire, [seq])
            session.change(statements.insert_workflow, values)
            return session.change(statements.confirm_workflow, (record.id,)) == 1

        with _storable():
            return await self._link.write(create, Need.NONE)

    async def add(self, workflow_id: str, nodes: Sequence[Node], now: int = 0) -> bool:
        """One transaction. Raises `EncodeError` for a node that cannot be stored."""
        for node in nodes:
            _check(node)

        def add(session: Session, held: Held) -> bool:
            if held.state != "recording":
                return False
            given = {number(held.seq, node.index): node for node in reversed(nodes)}
            known = {row[0] for row in session.rows_in(statements.known_nodes, list(given))}
            fresh = {key: given[key] for key in sorted(given) if key not in known}
            rows = [_node_row(held.seq, key, node) for key, node in fresh.items()]
            feeds = [(number(held.seq, fed), key) for key, node in fresh.items() for fed in dict.fromkeys(node.feeds)]
            counts = (held.nodes + len(fresh), held.open + len(fresh))
            with session.deferring():
                session.insert(statements.add_nodes, rows)
                session.insert(statements.add_feeds, feeds)
                session.insert(statements.add_waits, [(source, target) for target, source in feeds])
                session.change(statements.put_recorded, (held.touch(now), *counts, held.seq))
            return True

        with _storable():
            return await self._write(workflow_id, add, False, Need.NONE)

    async def start(self, workflow_id: str, plan: bytes, now: int) -> bool:
        """One transaction."""

        def start(session: Session, held: Held) -> bool:
            if held.state == "recording":
                session.change(statements.start_workflow, (held.touch(now), plan, held.seq))
            return True

        with _storable():
            return await self._write(workflow_id, start, False)

    # Running

    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        """One transaction, which it may share with others of the same moment."""
        if not marks:
            return []
        calls: list[EndCall] = [(marks, now)]
        [answers] = await self._link.batch(self._end, calls, self._need)
        return answers

    def _end(self, session: Session, calls: Sequence[EndCall]) -> Sequence[Sequence[Marked]]:
        return end(session, calls, self._store.now())

    async def reopen(self, workflow_id: str, runs: Mapping[int, int], now: int) -> bool:
        """One transaction."""

        def reopen(session: Session, held: Held) -> bool:
            seen = {number(held.seq, index): run for index, run in runs.items()}
            rows = session.rows_in(statements.read_marked, list(seen))
            ended = {node: feeds_from(feeds) for node, run, status, feeds in rows if status and run == seen[node]}
            if len(ended) < len(seen):
                return False
            nodes = sorted(ended)
            session.change_in(statements.reopen_nodes, nodes)
            session.change_in(statements.forget_gates, nodes)
            waits = [(node, number(held.seq, target)) for node in nodes for target in dict.fromkeys(ended[node])]
            session.insert(statements.add_waits, waits)
            if held.state == "finished":
                session.change(statements.begin_again, (held.seq,))
            session.insert(statements.put_open, [(held.seq, held.touch(now), held.open + len(nodes))])
            return True

        if not runs or not all(map(is_index, runs)):
            return False
        return await self._write(workflow_id, reopen, False)

    async def passed(self, workflow_id: str, gate: int, index: int, now: int, run: int = 0) -> None:
        """One transaction."""

        def put(session: Session, held: Held) -> None:
            key = number(held.seq, gate)
            runs = [0] if gate == START else [row[1] for row in session.rows_in(statements.read_marked, [key])]
            if runs != [run]:
                return
            before = {row[0]: row[1] for row in session.rows(statements.passed_of, (key, key))}
            if before.get(key, -1) < index:
                session.change(statements.put_passed, (key, index, index))
                session.insert(statements.put_open, [(held.seq, held.touch(now), held.open)])

        if gate == START or is_index(gate):
            await self._write(workflow_id, put, None, Need.NONE)

    async def finish(self, workflow_id: str, status: str, keep: float, now: int) -> bool:
        """One transaction."""

        def finish(session: Session, held: Held) -> bool:
            if held.state != "running" or held.open:
                return False
            until = self._store.now() + round(min(keep * 1000, _FOREVER))
            session.change(statements.finish_workflow, (status, held.touch(now), now, until, held.seq))
            return True

        self._upkeep.perhaps()
        return await self._write(workflow_id, finish, False, self._need)

    # Looking

    async def read(self, workflow_id: str, indexes: Sequence[int]) -> Sequence[NodeState | None]:
        """One look."""
        wanted = list(dict.fromkeys(index for index in indexes if is_index(index)))

        def read(session: Session, seq: int) -> dict[int, NodeState]:
            rows = session.rows_in(statements.read_nodes, [number(seq, index) for index in wanted])
            return {state.index: state for state in map(state_from, rows)}

        nothing: dict[int, NodeState] = {}
        found = await self._look(workflow_id, read, nothing)
        return [found.get(index) for index in indexes]

    async def nodes(
        self,
        workflow_id: str,
        *,
        after: int = -1,
        limit: int = 500,
        feeding: int | None = None,
        gate: int | None = None,
        unfinished: bool = False,
        unsuccessful: bool = False,
        bare: bool = False,
    ) -> Sequence[NodeState]:
        """One look."""
        page = (int(not unfinished), int(not unsuccessful), limit)

        def read(session: Session, seq: int) -> list[NodeState]:
            first, last = bounds(seq)
            begin = first + max(after, -1)
            if feeding is not None and bare:
                key = number(seq, feeding)
                rows = session.rows(statements.ends_feeding, (key, begin, key, last, *page))
                return list(map(ended_from, rows))
            if feeding is None and gate is None:
                rows = session.rows(statements.nodes_of, (begin, last, *page))
            else:
                build, of = (statements.nodes_behind, gate) if feeding is None else (statements.nodes_feeding, feeding)
                key = number(seq, START if of is None else of)
                rows = session.rows(build, (key, begin, key, last, *page))
            return list(map(state_from, rows))

        impossible = (feeding is not None and not is_index(feeding)) or (
            gate is not None and gate != START and not is_index(gate)
        )
        if impossible or limit <= 0 or after >= MOST_NODES:
            return []
        return await self._look(workflow_id, read, [])

    async def get(self, workflow_id: str) -> WorkflowRecord | None:
        """One look."""

        def read(session: Session) -> WorkflowRecord | None:
            for *shown, plan in session.rows(statements.read_workflow, (workflow_id,)):
                if shown[1] is None or shown[1] > self._store.now():
                    return _record(shown, _passed(session, [shown[0]]).get(shown[0], {}), plan)
            return None

        return await self._link.read(read)

    async def list(
        self,
        *,
        after: str = "",
        limit: int = 100,
        state: str = "",
        status: str = "",
        changed_before: int | None = None,
    ) -> Sequence[WorkflowRecord]:
        """One look."""
        before = 2**63 - 1 if changed_before is None else changed_before
        only = [word for word in (state, status) if word]
        shape = 1 + bool(state) + 2 * bool(status)
        values = (after, before, self._store.now(), *only, limit)

        def read(session: Session) -> list[WorkflowRecord]:
            rows = session.rows(statements.list_workflows, values, shape)
            passed = _passed(session, [row[0] for row in rows])
            return [_record(row, passed.get(row[0], {}), b"") for row in rows]

        return await self._link.read(read)

    # Deleting

    async def delete(self, workflow_ids: Sequence[str], *, state: str = "") -> int:
        """One transaction that takes them out of sight, then small ones; whoever prunes goes on with what is left."""
        if not workflow_ids:
            return 0

        def retire(session: Session) -> list[Held]:
            held = hold(session, workflow_ids, self._store.now()).values()
            found = [one for one in held if state in ("", one.state)]
            session.change_in(statements.retire, [held.seq for held in found])
            return found

        gone = await self._link.write(retire)
        steps = 1 + len(gone) + sum(held.nodes for held in gone) // STEP
        while steps > 0 and await self._link.run(self._prune):
            steps -= 1
        return len(gone)

    def _prune(self, session: Session) -> bool:
        return prune_workflows(session, self._store)

    # Life

    async def _write(
        self, workflow_id: str, work: Callable[[Session, Held], R], without: R, need: Need = Need.KEPT
    ) -> R:
        """Run it in a transaction that keeps the workflow from others; `without` is the answer where there is none."""

        def write(session: Session) -> R:
            held = hold(session, [workflow_id], self._store.now()).get(workflow_id)
            return without if held is None else work(session, held)

        return await self._link.write(write, need)

    async def _look(self, workflow_id: str, work: Callable[[Session, int], R], without: R) -> R:
        def read(session: Session) -> R:
            for seq, until in session.rows(statements.find_workflow, (workflow_id,)):
                if until is None or until > self._store.now():
                    return work(session, seq)
            return without

        return await self._link.read(read)

    def twin(self) -> Self:
        """Another one on the same database, with a connection of its own."""
        return type(self)(self._store, self._need)

    def abandon(self) -> None:
        """End the thread of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """End the thread and its connection."""
        await self._link.close()


@contextmanager
def _storable() -> Iterator[None]:
    """Raises `EncodeError` for values that no database stores."""
    try:
        yield
    except (OverflowError, UnicodeError) as error:
        raise EncodeError(f"a value of a workflow cannot be stored: {error}") from error


def _check(node: Node) -> None:
    gate = () if node.gate is None or node.gate == START else (node.gate,)
    for index in (node.index, *node.feeds, *gate):
        if not is_index(index):
            raise EncodeError(
                f"node {node.index} of a workflow names node {index}: there are at most {MOST_NODES:,} in one, from 0; "
                "make several workflows of it",
                path="nodes",
            )


def _node_row(seq: int, key: int, node: Node) -> tuple[Any, ...]:
    gate = None if node.gate is None else number(seq, node.gate)
    return key, gate, feeds_to(node.feeds), node.spec


def _passed(session: Session, seqs: Sequence[int]) -> dict[int, dict[int, int]]:
    """By workflow, for each gate the last index that was handed on."""
    found: dict[int, dict[int, int]] = {}
    for start in range(0, len(seqs), _AT_ONCE):
        some = list(seqs[start : start + _AT_ONCE])
        if len(some) > 1:
            some += some[-1:] * (_AT_ONCE - len(some))
        edges = [edge for seq in some for edge in bounds(seq)]
        for gate, passed in session.rows(statements.passed_of, edges, len(some)):
            found.setdefault(workflow_of(gate), {})[index_of(gate)] = passed
    return found


def _record(row: Sequence[Any], passed: dict[int, int], plan: bytes) -> WorkflowRecord:
    _, _, workflow_id, name, state, status, created, changed, finished, nodes, open_ = row
    return WorkflowRecord(
        id=workflow_id,
        name=name,
        plan=plan,
        state=state,
        status=status,
        created=created,
        changed=changed,
        finished=finished,
        nodes=nodes,
        open=open_,
        passed=passed,
    )
