"""The limit of aio-pika: persistent messages, confirmed, in a quorum queue, each acknowledged by itself."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from benchmarks.entrant import run_uvloop
from benchmarks.entrants.raw_amqp import PREFETCH, QUEUE, RawAmqp
from benchmarks.jobs import JOBS


class RawAioPika(RawAmqp):
    requires = ("aio_pika", "msgspec")
    distribution = "aio-pika"

    async def _connect(self) -> None:
        import aio_pika
        import msgspec

        self.connection = await aio_pika.connect(self.place.url)
        self.channel = await self.connection.channel(publisher_confirms=True)
        self.queue = await self.channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": self.queue_type})
        self.exchange, self.message = self.channel.default_exchange, aio_pika.Message
        self.encode, self.decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(tuple[str, list[Any]]).decode

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.exchange.publish(self.message(self.encode((job, args)), delivery_mode=2), QUEUE)

    async def _serve(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await self._connect()
        await self.channel.set_qos(prefetch_count=PREFETCH)

        async def run(message: Any) -> None:
            job, args = self.decode(message.body)
            await JOBS[job](*args)
            await message.ack()

        await self.queue.consume(run)
        await stop.wait()
        await self.close()

    def work(self, concurrency: int) -> None:
        run_uvloop(self._serve)


ENTRANT = RawAioPika
