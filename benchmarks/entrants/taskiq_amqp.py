"""taskiq on RabbitMQ, with the quorum queue that it declares of itself."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.entrants.taskiq_stream import TaskiqStream
from benchmarks.jobs import JOBS

PREFETCH = 300


class TaskiqAmqp(TaskiqStream):
    requires = ("taskiq_aio_pika",)
    distribution = "taskiq-aio-pika"
    package = "taskiq_aio_pika"
    server = "rabbitmq"
    queue_type = "quorum"
    lacks: ClassVar = {"w5": "keeps no results on RabbitMQ"}

    def _make(self) -> None:
        from taskiq_aio_pika import AioPikaBroker, Queue, QueueType

        self.broker: Any = AioPikaBroker(
            self.place.url, qos=PREFETCH, task_queues=[Queue(type=QueueType(self.queue_type))]
        )
        self.tasks = {name: self.broker.task(task_name=name)(job) for name, job in JOBS.items()}


ENTRANT = TaskiqAmqp
