"""Camora's plugin for RabbitMQ without Camora's worker and its messages: what the plugin alone costs.

Batches of the broker's own interface, as the worker uses it; jobs run one after the other.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from itertools import count
from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS

QUEUE, BATCH, BULK, WAIT = "default", 100, 1_000, 2.0


class CamoraAmqpBare(Entrant):
    requires = ("camora_amqp", "aio_pika", "msgspec")
    distribution = "camora-amqp"
    server = "rabbitmq"
    slow = 0.2
    lacks: ClassVar = {
        "w4": "runs one job at a time",
        "w5": "keeps no results",
        "import": "no framework",
    }

    async def open(self) -> None:
        import msgspec
        from camora.message import Envelope
        from camora.queue import Queue
        from camora_amqp import AmqpBroker

        self.broker: Any = AmqpBroker(self.place.url)
        self.broker.declare([Queue(QUEUE)])
        await self.broker.open()
        self.envelope, self.numbers = Envelope, count()
        self.encode, self.decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(tuple[str, list[Any]]).decode

    def _message(self, job: str, args: tuple[Any, ...]) -> Any:
        return self.envelope(id=str(next(self.numbers)), task=job, queue=QUEUE, body=self.encode((job, args)))

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.broker.publish([self._message(job, args)])

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(arguments), BULK):
            await self.broker.publish([self._message(job, args) for args in arguments[start : start + BULK]])

    async def close(self) -> None:
        await self.broker.close()

    async def _serve(self) -> None:
        from camora.interfaces.broker import ConsumerSettings
        from camora.outcome import Action, Settlement

        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await self.open()
        consumer = await self.broker.consumer(ConsumerSettings(queues=(QUEUE,), worker="bare", prefetch=2 * BATCH))
        while not stop.is_set():
            deliveries = await consumer.receive(BATCH, WAIT)
            for delivery in deliveries:
                job, args = self.decode(delivery.body)
                await JOBS[job](*args)
            await consumer.settle([Settlement(delivery=delivery, action=Action.ACK) for delivery in deliveries])
        await consumer.close()
        await self.close()

    def work(self, concurrency: int) -> None:
        run_uvloop(self._serve)


ENTRANT = CamoraAmqpBare
