"""The same with a classic queue."""

from __future__ import annotations

from benchmarks.entrants.taskiq_amqp import TaskiqAmqp


class TaskiqAmqpClassic(TaskiqAmqp):
    queue_type = "classic"
    lacks = TaskiqAmqp.lacks | {"import": "as taskiq_amqp"}


ENTRANT = TaskiqAmqpClassic
