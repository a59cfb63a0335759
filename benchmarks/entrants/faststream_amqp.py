"""FastStream on RabbitMQ, with quorum queues; it waits for confirms of itself. Its concurrency is its prefetch."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS


class FastStreamAmqp(Entrant):
    requires = ("faststream.rabbit",)
    distribution = "faststream"
    package = "faststream"
    server = "rabbitmq"
    slow = 2
    queue_type = "quorum"
    lacks: ClassVar = {"w5": "keeps no results"}

    def _make(self, concurrency: int) -> None:
        from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

        self.broker = RabbitBroker(self.place.url, default_channel=Channel(prefetch_count=concurrency), logger=None)
        kind: Any = QueueType(self.queue_type)
        self.queues = {name: RabbitQueue(name, queue_type=kind) for name in JOBS}

    async def open(self) -> None:
        self._make(1)
        await self.broker.connect()
        for queue in self.queues.values():
            await self.broker.declare_queue(queue)

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.broker.publish(args[0] if args else None, self.queues[job], persist=True)

    async def close(self) -> None:
        await self.broker.stop()

    def work(self, concurrency: int) -> None:
        from faststream import FastStream

        self._make(concurrency)
        for name, job in JOBS.items():
            self.broker.subscriber(self.queues[name])(job)
        run_uvloop(FastStream(self.broker, logger=None).run)


ENTRANT = FastStreamAmqp
