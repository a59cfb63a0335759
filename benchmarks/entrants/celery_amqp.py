"""Celery on RabbitMQ with a quorum queue, its default pool, and confirms, which it leaves off by default.

Results come by a reply queue, where the scenario looks at them.
"""

from __future__ import annotations

from typing import ClassVar

from benchmarks.entrants.celery_redis import CeleryRedis
from benchmarks.jobs import PLAIN_JOBS


class CeleryAmqp(CeleryRedis):
    requires: ClassVar[tuple[str, ...]] = ("celery",)
    server = "rabbitmq"
    senders = 16
    queue_type = "quorum"
    lacks: ClassVar = {"import": "as celery_redis"}

    def _make(self) -> None:
        from celery import Celery

        keep = self.place.keep_results
        self.app = Celery("bench", broker=self.place.url, backend="rpc://" if keep else None)
        self.app.conf.update(
            worker_hijack_root_logger=False,
            worker_prefetch_multiplier=100,
            task_ignore_result=not keep,
            task_default_queue_type=self.queue_type,
            broker_transport_options={"confirm_publish": True},
        )
        self.tasks = {name: self.app.task(job, name=name) for name, job in PLAIN_JOBS.items()}


ENTRANT = CeleryAmqp
