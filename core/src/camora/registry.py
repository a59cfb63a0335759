"""The tasks an app knows, by name. Owned by the app; nothing global."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from camora.errors import DuplicateTask
from camora.task import AnyTask

__all__ = ["TaskRegistry"]


class TaskRegistry:
    """Registered tasks, and the fallbacks of queues."""

    def __init__(self) -> None:
        self._tasks: dict[str, AnyTask] = {}
        self._fallbacks: dict[str, AnyTask] = {}

    def add(self, task: AnyTask) -> None:
        """Add a task. Raises `DuplicateTask` for a name that is taken."""
        other = self._tasks.get(task.name)
        if other is not None:
            raise DuplicateTask(
                f"two tasks are called {task.name!r}: {other.reference} and {task.reference}. "
                "Give one of them another name: @app.task(name=…)"
            )
        self._tasks[task.name] = task

    def add_fallback(self, queue: str, task: AnyTask) -> None:
        """Let this task take whatever nobody knows on a queue. Raises `DuplicateTask` when the queue has one."""
        if queue in self._fallbacks:
            raise DuplicateTask(
                f"queue {queue!r} has two fallbacks: {self._fallbacks[queue].reference} and {task.reference}"
            )
        self._fallbacks[queue] = task

    def get(self, name: str) -> AnyTask | None:
        """The task of this name."""
        return self._tasks.get(name)

    def for_message(self, name: str, queue: str) -> AnyTask | None:
        """The task that runs such a message here: its own, else the queue's fallback."""
        return self._tasks.get(name) or self._fallbacks.get(queue)

    @property
    def by_name(self) -> Mapping[str, AnyTask]:
        """All tasks, without fallbacks."""
        return self._tasks

    def queues(self) -> tuple[str, ...]:
        """Every queue that a task or fallback names, sorted; `default` is always among them."""
        return tuple(sorted({"default", *(task.config.queue for task in self._tasks.values()), *self._fallbacks}))

    def __iter__(self) -> Iterator[AnyTask]:
        yield from self._tasks.values()
        yield from self._fallbacks.values()
