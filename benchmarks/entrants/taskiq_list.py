"""taskiq on a Redis list."""

from __future__ import annotations

from typing import Any

from benchmarks.entrants.taskiq_stream import TaskiqStream


class TaskiqList(TaskiqStream):
    guarantee = "at most once"
    lacks = {"import": "as taskiq_stream"}  # noqa: RUF012

    def _broker(self) -> Any:
        from taskiq_redis import ListQueueBroker

        return ListQueueBroker(self.place.url)


ENTRANT = TaskiqList
