"""What a fault is tried on: a private server, a network in front of it, real workers, and the ledger they write."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from camora import AppSettings, Camora
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora.interfaces.broker import Broker
from camora.job import Job
from camora.testing.ledger import Audit, audit, read
from processes import WorkerProcess

from tests.servers.process import ServerProcess
from tests.servers.proxy import Proxy

__all__ = ["LEASE", "TIMEOUT", "Rig", "begun", "eventually", "more", "next_finish"]

LEASE = 1.5
TIMEOUT = 1.0
"""Seconds until a server that does not answer is given up."""

_UNFINISHED = ("ready", "scheduled", "leased")


async def eventually(what: Callable[[], Any], text: str, timeout: float = 60) -> None:
    """Look until it is so: other processes have no events to wait on. `what` may be a coroutine function.

    Less and less often: a look at a server or a ledger costs what those need who are waited for.
    """
    deadline = time.monotonic() + timeout
    pause = 0.01
    while True:
        found = what()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"{text} did not happen within {timeout} s"
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, 0.1)


class Rig(ABC):
    """Everything of one test. A kind of server adds how its URLs are made.

    `results` is where results are kept, if not with the broker.
    """

    results: str | None = None

    def __init__(self, folder: Path, server: ServerProcess, start: Callable[..., WorkerProcess]) -> None:
        self.folder = folder
        self.server = server
        self.proxy = Proxy((server.host, server.port))
        self.faults = 0
        self.dispatched: list[str] = []
        self.possible: set[str] = set()
        """Ids that may have been dispatched, as far as anybody knows: nobody was told that they were."""
        self.repeated: set[str] = set()
        """Ids that were dispatched again because nobody knew whether they had been: without dedup they run twice."""
        self.due: dict[str, int] = {}
        self.workers: list[WorkerProcess] = []
        self._start = start
        self._read_up_to: dict[int, int] = {}

    @abstractmethod
    def url(self, *, through: bool = False, user: str = "", **options: Any) -> str:
        """The URL of the server, or of the network in front of it."""

    def worker(
        self, *arguments: str, through: bool = False, user: str = "", url: str = "", **environment: str
    ) -> WorkerProcess:
        """A worker process, started and not waited for. Five jobs at a time unless the arguments say otherwise."""
        kept = {"SHOP_RESULTS": self.results} if self.results else {}
        made = self._start(
            self.folder,
            url or self.url(through=through, user=user),
            *(arguments or ("--concurrency", "5")),
            **{"CAMORA_WORKER__LEASE": str(LEASE), **kept, **environment},
        )
        self.workers.append(made)
        return made

    def client(self, *, through: bool = False, patience: float = 30.0, **options: Any) -> Camora:
        """An app that tries to dispatch for as long as `patience` seconds. It is still to be opened."""
        settings = AppSettings(dispatch_timeout=patience)
        return Camora(self.url(through=through, **options), results=self.results, settings=settings)

    @contextlib.asynccontextmanager
    async def app(self, **how: Any) -> AsyncIterator[Camora]:
        """A `client`, opened, however often that has to be tried."""
        async with contextlib.AsyncExitStack() as stack:

            async def opened() -> Camora | None:
                # A busy machine's answers come too late at times.
                with contextlib.suppress(BrokerUnavailable):
                    return await stack.enter_async_context(self.client(**how))
                return None

            yield await eventually(opened, "an app's opening")

    async def dispatch(
        self, app: Camora, task: str, *, how: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Job[Any]:
        """A job that the ledger will ask for, dispatched under its id until that is acknowledged."""
        options = dict(how or {})
        while True:
            try:
                return self.noted(await app.options(**options).dispatch(task, **kwargs))
            except DispatchUncertain as error:
                options["job_id"] = error.job_id
                self.repeated.add(error.job_id)

    async def delayed(self, app: Camora, delay: float, task: str, **kwargs: Any) -> Job[Any]:
        """A job that must not start before its time."""
        due = time.time_ns() // 1_000_000 + round(delay * 1000)
        job = await self.dispatch(app, task, how={"delay": delay}, **kwargs)
        self.due[job.id] = due
        return job

    async def load(self, app: Camora, count: int) -> list[Job[Any]]:
        """As many jobs, of all sorts: plain, tried again, urgent, delayed."""
        jobs = []
        urgencies = 3 if app.broker.capabilities.priority else 1
        for number in range(count):
            match number % 4:
                case 0:
                    jobs.append(await self.dispatch(app, "work", number=number))
                case 1:
                    jobs.append(await self.dispatch(app, "flaky", number=number))
                case 2:
                    jobs.append(await self.dispatch(app, "work", how={"priority": number % urgencies}, number=number))
                case _:
                    jobs.append(await self.delayed(app, 0.2 + (number % 5) / 5, "work", number=number))
        return jobs

    def noted(self, job: Job[Any]) -> Job[Any]:
        """Its dispatch was acknowledged: from now on it must not be lost."""
        self.dispatched.append(job.id)
        return job

    def finished(self) -> int:
        """How many runs have ended well so far."""
        return sum(entry.kind == "finished" for entry in read(self.folder / "ledger"))

    def ran(self, job: Job[Any]) -> bool:
        """Whether it was started at all."""
        return any(entry.job_id == job.id for entry in read(self.folder / "ledger"))

    async def balance(self, *, duplicates: int, timeout: float = 120) -> Audit:
        """Wait until nothing is left to do, then let the ledger, and the results, speak for all jobs of the test.

        As many as `duplicates` may have run twice, and where the broker does not know ids those that were dispatched
        again because nobody knew better.
        """
        async with self.app() as app:
            duplicates += 0 if app.broker.capabilities.dedup else len(self.repeated)
            await eventually(lambda: self.idle(app.broker), "the end of all jobs", timeout)
            dead = [letter.id async for letter in app.dead_letters()]
            missing = await self._without_result(app)
        self.dispatched += sorted(
            self.possible.difference(self.dispatched) & {entry.job_id for entry in read(self.folder / "ledger")}
        )
        self.possible.clear()
        found = audit(self.folder / "ledger", dispatched=self.dispatched, dead=dead, due=self.due, faults=self.faults)
        print(f"{found.summary()}, without result {len(missing)}")
        found.check(duplicates=duplicates)
        assert not missing, f"finished, and without a result: {missing[:5]}"
        return found

    async def _without_result(self, app: Camora) -> list[str]:
        finished: set[str] = set()

        async def read_all() -> bool:
            with contextlib.suppress(BrokerUnavailable):  # a busy machine's answers come too late at times
                for job_id in self.dispatched:
                    if job_id not in finished and (await (await app.job(job_id)).info()).status.finished:
                        finished.add(job_id)
                return True
            return False

        await eventually(read_all, "an answer for each job")
        return [job_id for job_id in self.dispatched if job_id not in finished]

    async def idle(self, broker: Broker) -> bool:
        """Whether no queue holds anything that is still to be done."""
        with contextlib.suppress(BrokerUnavailable):
            counts = await broker.queues.counts()
            return not any(queue.get(state) for queue in counts.values() for state in _UNFINISHED)
        return False

    async def noticed(self, *workers: WorkerProcess) -> None:
        """Wait until each of these says that the broker is away, whatever it wanted of it."""
        said = ("broker away", "cannot settle", "leases cannot be extended")
        for worker in workers:
            text = f"a worker's notice of the fault (its log:\n{worker.text()})"
            at = self._read_up_to.get(id(worker), 0)
            await eventually(lambda: any(word in line for line in worker.lines[at:] for word in said), text)  # noqa: B023
            self._read_up_to[id(worker)] = len(worker.lines)

    async def recovered(self, *workers: WorkerProcess) -> None:
        """Wait until none of these still believes that the broker is away: nobody says twice that it is."""
        for worker in workers:
            text = f"a worker's recovery (its log:\n{worker.text()})"

            def back(lines: list[str] = worker.lines) -> bool:
                words = ("broker away", "broker is back", "takes jobs")
                said = [line for line in lines if any(word in line for word in words)]
                return not said or "broker away" not in said[-1]

            await eventually(back, text)

    def alive(self) -> None:
        """No worker has ended by itself."""
        for worker in self.workers:
            assert worker.process.poll() is None, f"a worker ended by itself:\n{worker.text()}"


async def begun(rig: Rig, name: str, count: int = 1) -> None:
    """Wait until the job of this name has been started so often."""
    await eventually(lambda: len(list(rig.folder.glob(f"started-{name}-*"))) >= count, f"start {count} of {name}")


async def next_finish(rig: Rig) -> float:
    """Seconds until another job has ended."""
    before, since = rig.finished(), time.monotonic()
    await eventually(lambda: rig.finished() > before, "another job's end")
    return time.monotonic() - since


async def more(rig: Rig, app: Camora, count: int) -> list[Job[Any]]:
    """Jobs that are dispatched while the server is away: the dispatcher waits for it."""
    return await asyncio.gather(*(rig.dispatch(app, "work", number=number) for number in range(count)))
