"""One measurement's surroundings: the entrant, the pipe, and a worker of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import jobs, worker
from benchmarks.entrant import Entrant, InProcessEntrant
from benchmarks.meter import meter_of
from benchmarks.pipe import Pipe
from benchmarks.processes import cpu_ns, peak_rss_mib, rss_mib, tree

__all__ = ["Bench", "Span", "WorkerHandle"]


class Span:
    """From the first job to the last: seconds, and the worker's CPU seconds."""

    def __init__(self, wall_ns: int, worker_ns: int, count: int) -> None:
        self.seconds = wall_ns / 1e9
        self.cpu_seconds = worker_ns / 1e9
        self.count = count

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds for each job."""
        return self.cpu_seconds * 1e6 / self.count


class WorkerHandle:
    """A worker that runs: in a process of its own, or in this one (then `pid` is this process)."""

    def __init__(self, pid: int, log: Path | None) -> None:
        self.pid = pid
        self._log = log

    @property
    def cpu_ns(self) -> int:
        """CPU time of the worker's process tree."""
        return cpu_ns(self.pid)

    @property
    def rss_mib(self) -> float:
        """Resident memory of the worker's process tree."""
        return rss_mib(self.pid)

    @property
    def peak_rss_mib(self) -> float:
        """The most it had."""
        return peak_rss_mib(self.pid)


class Bench:
    """Made in the dispatching process, for one scenario and one entrant."""

    def __init__(self, entrant: Entrant, name: str, params: Mapping[str, Any]) -> None:
        self.entrant = entrant
        self.name = name
        self.params = params
        self.folder = entrant.place.folder
        self.pipe = Pipe(self.folder / "jobs.pipe")
        self.dead: set[asyncio.Task[str]] = set()
        self.meter = meter_of(entrant.server, entrant.place.url)

    @property
    def in_process(self) -> InProcessEntrant | None:
        """The entrant, if its worker has no process of its own."""
        return self.entrant if isinstance(self.entrant, InProcessEntrant) else None

    @contextlib.asynccontextmanager
    async def worker(
        self, *, expect: int, concurrency: int = 100, every: int = 0, url: str = ""
    ) -> AsyncIterator[WorkerHandle]:
        """Start a worker that tells of its first job and of job number `expect`; stop it at the end.

        With `every`, it tells of each so many jobs instead; with `url`, it finds its server there.
        """
        if self.in_process is not None:
            jobs.attach(str(self.pipe.path), expect, every=every)
            async with self.in_process.serving(concurrency):
                yield WorkerHandle(os.getpid(), None)
            return
        environment = {
            **os.environ,
            jobs.PIPE: str(self.pipe.path),
            jobs.EXPECT: str(expect),
            jobs.EVERY: str(every),
            jobs.FORKS: str(int(self.entrant.forks)),
            worker.KEEP: str(int(self.entrant.place.keep_results)),
            worker.URL: url or self.entrant.place.url,
            worker.OPTIONS: json.dumps(dict(self.entrant.place.options)),
        }
        log = self.folder / "worker.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.worker", self.name, str(self.folder), str(concurrency),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            )  # fmt: skip
        dead = asyncio.ensure_future(self._died(process, log))
        self.dead.add(dead)
        try:
            yield WorkerHandle(process.pid, log)
        finally:
            self.dead.remove(dead)
            dead.cancel()
            await _stop(process)

    def close(self) -> None:
        """Close what it holds."""
        self.pipe.close()
        if self.meter:
            self.meter.close()

    async def _died(self, process: asyncio.subprocess.Process, log: Path) -> str:
        code = await process.wait()
        return f"the worker ended with code {code}: {' | '.join(log.read_text().splitlines()[-6:])}"

    async def line(self) -> list[str]:
        """The next line from a job; raises when the worker is dead."""
        reading = asyncio.ensure_future(self.pipe.next())
        try:
            done, _ = await asyncio.wait({reading, *self.dead}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            reading.cancel()
            raise
        if reading in done:
            return reading.result()
        reading.cancel()
        raise RuntimeError(next(task.result() for task in self.dead if task in done))

    async def span(self, handle: WorkerHandle, expect: int) -> Span:
        """Wait for the first and the last of `expect` jobs."""
        first: tuple[int, int] | None = None
        seen = 0
        while True:
            words = await self.line()
            cpu = 0
            if words[0] == "count":
                seen, now, cpu = int(words[1]), int(words[2]), int(words[3])
            else:
                seen += 1
                now = int(words[1])
                cpu = handle.cpu_ns if seen in (1, expect) else 0
            if first is None:
                first = (now, cpu)
            if seen >= expect:
                return Span(now - first[0], cpu - first[1], max(1, expect - 1))


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a worker that this process started, and what it left."""
    below = tree(process.pid)[1:]
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 8)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
