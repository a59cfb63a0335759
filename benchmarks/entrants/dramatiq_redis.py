"""Dramatiq on Redis: threads; results only where they are waited for."""

from __future__ import annotations

import signal
import threading
from typing import Any, ClassVar

from benchmarks.entrant import SyncEntrant
from benchmarks.jobs import PLAIN_JOBS


class DramatiqRedis(SyncEntrant):
    requires = ("dramatiq", "redis")
    distribution = "dramatiq"
    package = "dramatiq"
    server = "redis"
    slow = 4
    variants: ClassVar = {"8 threads": {"threads": 8}, "1 thread": {"threads": 1}, "100 threads": {"threads": 100}}

    def _make(self) -> None:
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker
        from dramatiq.middleware import GroupCallbacks
        from dramatiq.rate_limits.backends import RedisBackend as RateLimiterBackend
        from dramatiq.results import Results
        from dramatiq.results.backends import RedisBackend

        self.backend = RedisBackend(url=self.place.url)
        self.broker = RedisBroker(url=self.place.url)
        self.broker.add_middleware(Results(backend=self.backend))
        self.broker.add_middleware(GroupCallbacks(RateLimiterBackend(url=self.place.url)))
        dramatiq.set_broker(self.broker)
        self.actors: dict[str, Any] = {
            name: dramatiq.actor(job, actor_name=name, broker=self.broker, store_results=self.place.keep_results)
            for name, job in PLAIN_JOBS.items()
        }

    async def open(self) -> None:
        self._make()

    def send(self, job: str, *args: Any) -> Any:
        return self.actors[job].send(*args)

    def send_and_wait(self, value: int) -> int:
        result: int = self.actors["echo"].send(value).get_result(backend=self.backend, block=True, timeout=30_000)
        return result

    async def chord(self, count: int) -> None:
        from dramatiq import group

        members = group(self.actors["noop"].message() for _ in range(count))
        members.add_completion_callback(self.actors["body"].message())
        members.run()

    async def chain(self, count: int) -> None:
        from dramatiq import pipeline

        answer = self.actors["answer"]
        pipeline([answer.message(1), *(answer.message() for _ in range(count - 1))]).run()

    async def close(self) -> None:
        self.broker.close()

    def work(self, concurrency: int) -> None:
        from dramatiq import Worker

        self._make()
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        worker = Worker(self.broker, worker_threads=self.place.options["threads"])
        worker.start()
        stop.wait()
        worker.stop(timeout=2_000)


ENTRANT = DramatiqRedis
