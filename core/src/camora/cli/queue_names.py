"""Queues by name: any name is a queue, so a misspelt one is no mistake, but worth a remark."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import TYPE_CHECKING

from camora.cli.output import note

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["doubt_queue", "named_queues"]


def named_queues(app: Camora) -> set[str]:
    """The queues that the app's tasks and settings name."""
    return {*app.tasks.queues(), *(queue.name for queue in app.queues)}


def doubt_queue(name: str, known: Collection[str]) -> bool:
    """Say on stderr that nobody knows a queue of this name, but one that is called nearly so; True when it was said."""
    near = difflib.get_close_matches(name, sorted(known), n=1) if name not in known else []
    if near:
        note(f"nothing is known of a queue {name!r}; did you mean {near[0]!r}?")
    return bool(near)
