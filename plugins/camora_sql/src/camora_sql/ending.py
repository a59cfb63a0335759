"""The ends of nodes: which of them stand, and what of that is to be decided now. Runs in a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from camora.interfaces.workflows import Mark, Marked, NodeState

from camora_sql.holding import Held, hold
from camora_sql.numbering import index_of, is_index, number, workflow_of
from camora_sql.session import Session
from camora_sql.statements import workflows as statements

__all__ = ["EndCall", "end", "ended_from", "feeds_from", "feeds_to", "state_from"]

EndCall = tuple[Sequence[Mark], int]
"""Marks that are made together, and the moment they bear."""
_SUCCEEDED = "succeeded"
_encode = msgspec.json.Encoder().encode
_indexes = msgspec.json.Decoder(tuple[int, ...])


def feeds_to(feeds: Sequence[int]) -> str:
    """What a node feeds, as text."""
    return _encode(feeds).decode()


def feeds_from(text: str) -> tuple[int, ...]:
    """The same back."""
    return _indexes.decode(text)


def state_from(row: Sequence[Any]) -> NodeState:
    """A row of `read_nodes`, and of those like it."""
    node, gate, run, status, feeds, spec, outcome, waiting = row
    return NodeState(
        index=index_of(node),
        spec=spec,
        feeds=feeds_from(feeds),
        gate=None if gate is None else index_of(gate),
        waiting=waiting,
        run=run,
        status=status,
        outcome=outcome or b"",
    )


def ended_from(row: Sequence[Any]) -> NodeState:
    """A row of `ends_feeding`."""
    node, run, status, outcome = row
    return NodeState(index=index_of(node), run=run, status=status, outcome=outcome or b"")


def end(session: Session, calls: Sequence[EndCall], at: int) -> list[Sequence[Marked]]:
    """Each call by itself, one after the other, in one transaction; `at` is the moment by the store's clock."""
    held = hold(session, (mark.workflow for marks, _ in calls for mark in marks), at)
    return [_end(session, held, marks, now) for marks, now in calls]


def _end(session: Session, held: dict[str, Held], marks: Sequence[Mark], now: int) -> list[Marked]:
    """Each in as many statements, however large the workflows are, and in few for any number of marks."""
    places = [_place(held, mark) for mark in marks]
    rows = {row[0]: row[1:] for row in session.rows_in(statements.read_marked, _once(places))}
    fresh: dict[int, Mark] = {}
    known: list[int | None] = []
    repeated: set[int] = set()
    for mark, node in zip(marks, places, strict=True):
        row = None if node is None else rows.get(node)
        if node is None or row is None or row[0] != mark.run:
            known.append(None)
            continue
        known.append(node)
        if row[1] or node in fresh:
            repeated.add(node)
        else:
            fresh[node] = mark
    _note(session, held, fresh, now)
    standing = _states(session.rows_in(statements.read_nodes, list(repeated)))
    targets = _Targets()
    for node in _once(known):
        _, status, feeds = rows[node]
        fed = [number(workflow_of(node), target) for target in dict.fromkeys(feeds_from(feeds))]
        targets.of[node] = fed
        succeeded = (fresh[node].status if node in fresh else status) == _SUCCEEDED
        (targets.wanted if succeeded else targets.unwanted).update(fed)
        targets.succeeded[node] = succeeded
    targets.read(session)
    first: set[int] = set()
    answers = []
    for mark, known_node in zip(marks, known, strict=True):
        if known_node is None:
            answers.append(Marked(known=False))
            continue
        # Of marks of the same node, the first is the one that stands.
        new = known_node in fresh and known_node not in first
        first.add(known_node)
        answers.append(
            Marked(
                standing=None if new else standing[known_node],
                targets=targets.decided(known_node),
                open=held[mark.workflow].open,
            )
        )
    return answers


class _Targets:
    """What the marked nodes feed, and what of that may have to be decided."""

    def __init__(self) -> None:
        self.of: dict[int, list[int]] = {}
        self.succeeded: dict[int, bool] = {}
        self.wanted: set[int] = set()
        """Fed by what has succeeded: it matters whether they wait for anything else."""
        self.unwanted: set[int] = set()
        """Fed by what has not: they are to be decided now."""
        self._states: dict[int, NodeState] = {}

    def read(self, session: Session) -> None:
        self._states = _states(
            [
                *session.rows_in(statements.ready_nodes, list(self.wanted - self.unwanted)),
                *session.rows_in(statements.open_nodes, list(self.unwanted)),
            ]
        )

    def decided(self, node: int) -> tuple[NodeState, ...]:
        found = [self._states[target] for target in self.of[node] if target in self._states]
        return tuple(state for state in found if not (self.succeeded[node] and state.waiting))


def _note(session: Session, held: dict[str, Held], fresh: dict[int, Mark], now: int) -> None:
    if not fresh:
        return
    touched: dict[int, Held] = {}
    for mark in fresh.values():
        workflow = held[mark.workflow]
        workflow.open -= 1
        touched[workflow.seq] = workflow
    with session.deferring():
        session.insert(statements.end_nodes, [(node, mark.status, mark.outcome) for node, mark in fresh.items()])
        session.change_in(statements.end_waits, list(fresh))
        session.insert(statements.put_open, [(one.seq, one.touch(now), one.open) for one in touched.values()])


def _place(held: dict[str, Held], mark: Mark) -> int | None:
    workflow = held.get(mark.workflow)
    return number(workflow.seq, mark.index) if workflow is not None and is_index(mark.index) else None


def _once(nodes: Iterable[int | None]) -> list[int]:
    return list(dict.fromkeys(node for node in nodes if node is not None))


def _states(rows: Iterable[Sequence[Any]]) -> dict[int, NodeState]:
    return {row[0]: state_from(row) for row in rows}
