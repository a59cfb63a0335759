"""What a test may call a task."""

from __future__ import annotations

from typing import Any

from camora.task import Task, default_name

__all__ = ["task_name"]


def task_name(what: Any) -> str:
    """The name of a task, a task class or object, a signature, or a name. Raises `TypeError` for anything else."""
    if isinstance(what, str):
        return what
    if isinstance(what, Task):
        return what.name
    inner = getattr(what, "task", None)  # of a signature
    if inner is not None and isinstance(getattr(inner, "name", None), str):
        return str(inner.name)
    kind = what if isinstance(what, type) else type(what)
    if hasattr(kind, "execute"):
        return default_name(kind)
    raise TypeError(f"{what!r} is no task: give a task, a task class, a signature or a task's name")
