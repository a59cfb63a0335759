"""Celery on Redis with its default pool: child processes, one for each of two cores, or 20."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.entrant import SyncEntrant
from benchmarks.jobs import PLAIN_JOBS


class CeleryRedis(SyncEntrant):
    requires: ClassVar[tuple[str, ...]] = ("celery", "redis")
    distribution = "celery"
    package = "celery"
    server = "redis"
    guarantee = "at most once (acks early)"
    forks = True
    slow = 4
    variants: ClassVar = {
        "2 processes": {"pool": "prefork", "count": 2},
        "20 processes": {"pool": "prefork", "count": 20},
    }

    def _make(self) -> None:
        from celery import Celery

        self.app = Celery("bench", broker=self.place.url, backend=self.place.url)
        self.app.conf.update(
            worker_hijack_root_logger=False, worker_prefetch_multiplier=100, task_ignore_result=True, result_expires=600
        )
        forget = not self.place.keep_results
        self.tasks = {name: self.app.task(job, name=name, ignore_result=forget) for name, job in PLAIN_JOBS.items()}

        # What others wait for must leave a result.
        self.kept = {
            name: self.app.task(PLAIN_JOBS[name], name=f"kept_{name}", ignore_result=False)
            for name in ("noop", "answer", "body")
        }

    async def open(self) -> None:
        self._make()

    async def chord(self, count: int) -> None:
        from celery import chord

        chord(self.kept["noop"].si() for _ in range(count))(self.kept["body"].s())

    async def chain(self, count: int) -> None:
        from celery import chain

        answer = self.kept["answer"]
        chain(answer.s(1), *(answer.s() for _ in range(count - 1)))()

    def send(self, job: str, *args: Any) -> Any:
        return self.tasks[job].delay(*args)

    def send_and_wait(self, value: int) -> int:
        result: int = self.tasks["echo"].delay(value).get(timeout=30)
        return result

    async def close(self) -> None:
        self.app.close()

    def work(self, concurrency: int) -> None:
        self._make()
        options = self.place.options
        self.app.worker_main(
            ["worker", "-P", options["pool"], "-c", str(options["count"]), "-l", "WARNING", "--without-gossip",
             "--without-mingle", "--without-heartbeat"]
        )  # fmt: skip


ENTRANT = CeleryRedis
