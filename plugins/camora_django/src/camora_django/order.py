"""A call of one of Django's tasks as it travels: the payload of a job of Camora's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

import attrs
from django.conf import settings
from django.utils.module_loading import import_string

from camora_django.interface import Task

__all__ = ["Order", "from_stamp", "stamp_of"]


@attrs.frozen(kw_only=True)
class Order:
    """Plain data. `run_after` is milliseconds since the epoch, 0 for at once."""

    path: str
    """Where the task is: `shop.tasks.send_mail`."""
    backend: str
    queue: str
    priority: int
    run_after: int
    args: list[Any]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, task: Task, args: list[Any], kwargs: dict[str, Any]) -> Self:
        """The order for a call; its arguments must be JSON by now."""
        return cls(
            path=task.module_path,
            backend=task.backend,
            queue=task.queue_name,
            priority=task.priority,
            run_after=0 if task.run_after is None else stamp_of(task.run_after),
            args=args,
            kwargs=kwargs,
        )

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Self:
        """The order in a payload. Raises `TypeError` for what is none."""
        return cls(**payload)

    def payload(self) -> dict[str, Any]:
        """As keyword arguments."""
        return attrs.asdict(self, recurse=False)

    def task(self) -> Task:
        """The task as it was ordered. Raises `ImportError` where there is none any more."""
        found = import_string(self.path)
        if not isinstance(found, Task):
            raise ImportError(f"{self.path} is no task of Django's any more: it lacks its @task")  # noqa: TRY004
        changes = {"priority": self.priority, "queue_name": self.queue, "backend": self.backend}
        return found.using(**changes, run_after=from_stamp(self.run_after))


def from_stamp(stamp: int) -> datetime | None:
    """A moment as Django has it in this project: aware, or local and naive; None for 0."""
    if not stamp:
        return None
    return datetime.fromtimestamp(stamp / 1000, UTC if settings.USE_TZ else None)


def stamp_of(moment: datetime) -> int:
    """The same back; a naive moment is local."""
    return round(moment.timestamp() * 1000)
