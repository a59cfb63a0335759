"""How a node of a workflow is known in the tables: by one number, made of its workflow's and its own.

So any set of nodes, of whichever workflows, is a list of numbers, and those of one workflow stand side by side.
"""

from __future__ import annotations

from camora.interfaces.workflows import START

__all__ = ["MOST_NODES", "bounds", "index_of", "is_index", "number", "workflow_of"]

_BITS = 24
MOST_NODES = (1 << _BITS) - 1
"""Nodes that one workflow can have; the number above them all is that of the gate `START`."""


def is_index(index: int) -> bool:
    """Whether a node can have this index."""
    return 0 <= index < MOST_NODES


def number(workflow: int, index: int) -> int:
    """The number of a node, or of the gate `START`."""
    return (workflow << _BITS) + (MOST_NODES if index == START else index)


def index_of(node: int) -> int:
    """The index in its workflow; `START` for that gate."""
    index = node & MOST_NODES
    return START if index == MOST_NODES else index


def workflow_of(node: int) -> int:
    """The number of its workflow."""
    return node >> _BITS


def bounds(workflow: int) -> tuple[int, int]:
    """The first and the last number that belong to this workflow."""
    first = workflow << _BITS
    return first, first + MOST_NODES
