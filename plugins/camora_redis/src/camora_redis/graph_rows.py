"""Nodes of workflows as the server's scripts keep and show them (see `scripts/common.lua`)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from camora.interfaces.workflows import Node, NodeState, WorkflowRecord

__all__ = ["come_to", "ends_from", "meta_of", "record_from", "states_from"]


def meta_of(node: Node) -> str:
    """What it feeds, and its gate, if it has one."""
    return _meta(node.feeds, node.gate)


# Members of a group all have the same.
@functools.lru_cache(maxsize=1024)
def _meta(feeds: tuple[int, ...], gate: int | None) -> str:
    text = " ".join(map(str, feeds))
    return text if gate is None else f"{text}@{gate}"


@functools.lru_cache(maxsize=1024)
def _feeds_and_gate(meta: bytes) -> tuple[tuple[int, ...], int | None]:
    feeds, at, gate = meta.partition(b"@")
    return tuple(map(int, feeds.split())), int(gate) if at else None


def come_to(status: str, outcome: bytes) -> bytes:
    """What a node came to, in one value."""
    return _begin(status) + outcome


@functools.lru_cache(maxsize=32)
def _begin(status: str) -> bytes:
    name = status.encode()
    return len(name).to_bytes(2, "big") + name


_SUCCEEDED = "succeeded"
_WELL = _begin(_SUCCEEDED)
"""So begins what most nodes came to."""
_WELL_ENDS = len(_WELL)


def states_from(rows: Sequence[Any]) -> Iterator[NodeState]:
    """Nodes: six words each."""
    for at in range(0, len(rows), 6):
        index, meta, spec, waiting, run, value = rows[at : at + 6]
        feeds, gate = _feeds_and_gate(meta)
        status, outcome = _came_to(value)
        yield NodeState(
            index=int(index),
            spec=spec,
            feeds=feeds,
            gate=gate,
            waiting=waiting,
            run=run,
            status=status,
            outcome=outcome,
        )


def ends_from(rows: Sequence[Any]) -> Iterator[NodeState]:
    """How nodes ended: three words each."""
    for at in range(0, len(rows), 3):
        status, outcome = _came_to(rows[at + 2])
        yield NodeState(index=rows[at], run=rows[at + 1], status=status, outcome=outcome)


def _came_to(value: bytes) -> tuple[str, bytes]:
    if value[:_WELL_ENDS] == _WELL:
        return _SUCCEEDED, value[_WELL_ENDS:]
    end = 2 + int.from_bytes(value[:2], "big")
    return value[2:end].decode(), value[end:]


def record_from(
    workflow_id: str, nodes: int, unfinished: int, flat: Sequence[bytes], plan: bytes = b""
) -> WorkflowRecord:
    """A workflow as a whole: `flat` is its record, names and values by turns."""
    known: Mapping[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
    passed = {int(name[2:]): int(last) for name, last in known.items() if name[:2] == b"p:"}
    return WorkflowRecord(
        id=workflow_id,
        name=known[b"name"].decode(),
        plan=plan,
        state=known[b"state"].decode(),
        status=known.get(b"status", b"").decode(),
        created=int(known[b"created"]),
        changed=int(known[b"changed"]),
        finished=int(known.get(b"finished", 0)),
        nodes=nodes,
        open=unfinished,
        passed=passed,
    )
