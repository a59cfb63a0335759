"""The limit of azure-servicebus: full batches out, and in as many as one call brings, all completed at once.

Written as its documentation and its traps suggest: no prefetching (it costs this client more than it brings), a short
`socket_timeout` (its writers wait for its reader), one call of `receive_messages` after the other. Received is by one
receiver or by two, and by 100 or by 500, whichever is best.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS
from benchmarks.servicebus_server import QUEUE


class RawServiceBus(Entrant):
    requires: ClassVar[tuple[str, ...]] = ("azure.servicebus", "msgspec")
    distribution = "azure-servicebus"
    server = "servicebus"
    slow = 0.2
    variants: ClassVar = {
        "one receiver by 100": {"receivers": 1, "batch": 100},
        "one receiver by 500": {"receivers": 1, "batch": 500},
        "two receivers by 100": {"receivers": 2, "batch": 100},
        "two receivers by 500": {"receivers": 2, "batch": 500},
        "one receiver by 1": {"receivers": 1, "batch": 1},
    }
    lacks: ClassVar = {
        "w4": "runs one job at a time",
        "w5": "keeps no results",
        "import": "no framework",
    }

    def _connect(self) -> None:
        import msgspec
        from azure.servicebus import ServiceBusMessage
        from azure.servicebus.aio import ServiceBusClient

        parts = urlsplit(self.place.url)
        self.client: Any = ServiceBusClient.from_connection_string(
            f"Endpoint=sb://{parts.hostname}:{parts.port};SharedAccessKeyName={unquote(parts.username or '')};"
            f"SharedAccessKey={unquote(parts.password or '')};UseDevelopmentEmulator=true"
        )
        self.message = ServiceBusMessage
        self.encode, self.decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(tuple[str, list[Any]]).decode

    async def open(self) -> None:
        self._connect()
        self.sender: Any = self.client.get_queue_sender(QUEUE, socket_timeout=0.02)
        await self.sender.__aenter__()

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.sender.send_messages(self.message(self.encode((job, args))), timeout=30)

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        batch = await self.sender.create_message_batch()
        for args in arguments:
            message = self.message(self.encode((job, args)))
            try:
                batch.add_message(message)
            except ValueError:  # it is full
                await self.sender.send_messages(batch, timeout=30)
                batch = await self.sender.create_message_batch()
                batch.add_message(message)
        await self.sender.send_messages(batch, timeout=30)

    async def close(self) -> None:
        await self.sender.close()
        await self.client.close()

    async def _receive(self, stop: asyncio.Event, count: int) -> None:
        receiver = self.client.get_queue_receiver(QUEUE, prefetch_count=0, socket_timeout=0.02)
        async with receiver:
            while not stop.is_set():
                messages = await receiver.receive_messages(max_message_count=count, max_wait_time=5)
                for message in messages:
                    job, args = self.decode(b"".join(message.body))
                    await JOBS[job](*args)
                await asyncio.gather(*(receiver.complete_message(message) for message in messages))

    async def _serve(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        self._connect()
        options = self.place.options or self.variants["one receiver by 100"]
        receiving = [asyncio.ensure_future(self._receive(stop, options["batch"])) for _ in range(options["receivers"])]
        await stop.wait()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*receiving), 6)
        await self.client.close()

    def work(self, concurrency: int) -> None:
        run_uvloop(self._serve)


ENTRANT = RawServiceBus
