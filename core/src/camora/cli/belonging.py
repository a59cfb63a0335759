"""Which workflow an id belongs to, of which no job is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camora.connections import Connection

__all__ = ["told", "workflow_of"]


async def workflow_of(connection: Connection, job_id: str) -> str:
    """The recorded workflow that has this id, or a job of this id (`….3`, `….3.1`); else an empty text."""
    store = await connection.workflows()
    if store is None:
        return ""
    name = job_id
    for _ in range(3):
        if await store.get(name) is not None:
            return name
        name, _, number = name.rpartition(".")
        if not name or not number.isdecimal():
            break
    return ""


def told(workflow: str, job_id: str) -> str:
    """What that means, in words."""
    if workflow == job_id:
        return "it is a workflow, not a job"
    return (
        f"it is a part of workflow {workflow} of which no job is known: it waits for others, was skipped, or ended "
        "longer ago than its result is kept"
    )
