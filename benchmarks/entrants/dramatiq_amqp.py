"""Dramatiq on RabbitMQ: threads, and confirms, which it leaves off by default. It knows classic queues only."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.entrants.dramatiq_redis import DramatiqRedis
from benchmarks.jobs import PLAIN_JOBS


class DramatiqAmqp(DramatiqRedis):
    requires = ("dramatiq", "pika")
    server = "rabbitmq"
    senders = 16
    lacks: ClassVar = {"w5": "keeps no results on RabbitMQ", "import": "as dramatiq_redis"}

    def _make(self) -> None:
        import dramatiq
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        self.broker: Any = RabbitmqBroker(url=self.place.url, confirm_delivery=True)
        dramatiq.set_broker(self.broker)
        self.actors = {
            name: dramatiq.actor(job, actor_name=name, broker=self.broker) for name, job in PLAIN_JOBS.items()
        }


ENTRANT = DramatiqAmqp
