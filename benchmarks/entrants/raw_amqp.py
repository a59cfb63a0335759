"""The limit: aiormq without a framework; persistent messages, confirmed, in a quorum queue, acknowledged by 100."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS

QUEUE, PREFETCH, BATCH, UNCONFIRMED = "raw", 300, 100, 1_000


class RawAmqp(Entrant):
    requires: ClassVar[tuple[str, ...]] = ("aiormq", "msgspec")
    distribution = "aiormq"
    server = "rabbitmq"
    slow = 0.5
    queue_type = "quorum"
    lacks: ClassVar = {
        "w4": "runs one job at a time",
        "w5": "keeps no results",
        "import": "no framework",
    }

    async def _connect(self) -> None:
        import aiormq
        import msgspec

        self.connection: Any = await aiormq.connect(self.place.url)
        self.channel: Any = await self.connection.channel(publisher_confirms=True)
        await self.channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": self.queue_type})
        self.properties = aiormq.spec.Basic.Properties
        self.encode, self.decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(tuple[str, list[Any]]).decode

    async def open(self) -> None:
        await self._connect()

    async def dispatch(self, job: str, *args: Any) -> Any:
        # It is confirmed when this returns; it need not wait for the socket before.
        return await self.channel.basic_publish(
            self.encode((job, args)), routing_key=QUEUE, properties=self.properties(delivery_mode=2), wait=False
        )

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(arguments), UNCONFIRMED):
            await asyncio.gather(*(self.dispatch(job, *args) for args in arguments[start : start + UNCONFIRMED]))

    async def close(self) -> None:
        await self.connection.close()

    async def _serve(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await self._connect()
        await self.channel.basic_qos(prefetch_count=PREFETCH)
        newest = unsettled = 0

        async def run(message: Any) -> None:
            nonlocal newest, unsettled
            job, args = self.decode(message.body)
            await JOBS[job](*args)
            newest, unsettled = message.delivery_tag, unsettled + 1
            if unsettled == BATCH:
                unsettled = 0
                await self.channel.basic_ack(newest, multiple=True)

        await self.channel.basic_consume(QUEUE, run)
        await stop.wait()
        if unsettled:
            await self.channel.basic_ack(newest, multiple=True)
        await self.close()

    def work(self, concurrency: int) -> None:
        run_uvloop(self._serve)


ENTRANT = RawAmqp
