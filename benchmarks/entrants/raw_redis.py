"""The limit: redis-py and hiredis without a framework; a stream read, acknowledged and deleted by 100."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS

STREAM, GROUP, BLOCK_MS = "raw", "workers", 2_000


class RawRedis(Entrant):
    requires = ("redis", "hiredis", "msgspec")
    distribution = "redis"
    server = "redis"
    slow = 0.2
    batch = 100
    lacks: ClassVar = {
        "w4": "runs one job at a time",
        "w5": "keeps no results",
        "import": "no framework",
    }

    def _connect(self) -> None:
        import msgspec
        from redis.asyncio import Redis

        self.redis: Any = Redis.from_url(self.place.url)
        self.encode, self.decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(tuple[str, list[Any]]).decode

    async def open(self) -> None:
        self._connect()
        await self.redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.redis.xadd(STREAM, {b"j": self.encode((job, args))})

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(arguments), self.batch):
            pipeline = self.redis.pipeline(transaction=False)
            for args in arguments[start : start + self.batch]:
                pipeline.xadd(STREAM, {b"j": self.encode((job, args))})
            await pipeline.execute()

    async def close(self) -> None:
        await self.redis.aclose()

    async def _serve(self) -> None:
        streams: Any = {STREAM: ">"}
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
        self._connect()
        while True:
            for _, messages in (
                await self.redis.xreadgroup(GROUP, "one", streams, count=self.batch, block=BLOCK_MS) or ()
            ):
                for _, fields in messages:
                    job, args = self.decode(fields[b"j"])
                    await JOBS[job](*args)
                pipeline = self.redis.pipeline(transaction=False)
                ids = [number for number, _ in messages]
                pipeline.xack(STREAM, GROUP, *ids)
                pipeline.xdel(STREAM, *ids)
                await pipeline.execute()

    def work(self, concurrency: int) -> None:
        run_uvloop(self._serve)


ENTRANT = RawRedis
