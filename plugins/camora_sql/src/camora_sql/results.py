"""The SQL result backend."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Self

from camora.clock import SYSTEM_CLOCK, Clock
from camora.interfaces.journal import Journal
from camora.interfaces.limits import Limits
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import ScheduleStore
from camora.interfaces.workers import WorkerDirectory
from camora.interfaces.workflows import WorkflowStore
from camora.outcome import JobRecord, Status

from camora_sql import statements
from camora_sql.dialects.base import Need
from camora_sql.journals import SqlJournal
from camora_sql.limits import SqlLimits
from camora_sql.link import Link
from camora_sql.records import forget, put_records, record_from
from camora_sql.schedules import SqlScheduleStore
from camora_sql.session import Session
from camora_sql.settings import SqlSettings
from camora_sql.statements import records as finished
from camora_sql.store import Store
from camora_sql.wakeup import Topic
from camora_sql.workers import SqlWorkerDirectory
from camora_sql.workflows import SqlWorkflowStore

__all__ = ["SqlResultBackend"]


class SqlResultBackend(ResultBackend):
    """Records in a table that can be queried: `camora_results`. See `SqlBroker` for the URL."""

    def __init__(self, url: str, settings: SqlSettings | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._start(Store(url, settings, clock=clock))

    def _start(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"SqlResultBackend({store.dialect.label})")
        self._waiting: dict[str, set[asyncio.Future[JobRecord | None]]] = defaultdict(set)
        self._watcher: asyncio.Task[None] | None = None
        self._closing = False
        self._woken = asyncio.Event()

    @classmethod
    def on(cls, store: Store) -> Self:
        """A backend on a broker's database."""
        backend = cls.__new__(cls)
        backend._start(store)  # noqa: SLF001 -- its own class
        return backend

    def __repr__(self) -> str:
        return f"SqlResultBackend({self._store.dialect.label!r})"

    @property
    def url(self) -> str:
        """The database's resolved address, without secrets or options."""
        return self._store.dialect.url

    async def open(self) -> None:
        """Connect; make or check the schema."""
        await self._link.open()

    async def store(self, records: Sequence[JobRecord]) -> None:
        """One transaction."""
        if not records:
            return

        def put(session: Session) -> None:
            if put_records(session, records, self._store.now()):
                session.announce(Topic.RESULTS)

        await self._link.write(put)

    async def fetch(self, job_ids: Sequence[str]) -> Sequence[JobRecord | None]:
        """One look."""
        if not job_ids:
            return []
        rows = await self._link.read(lambda session: session.rows_in(statements.read_records, job_ids))
        now = self._store.now()
        found = {row[0]: record_from(row) for row in rows if _expires(row) > now}
        return [found.get(job_id) for job_id in job_ids]

    async def wait(self, job_id: str, timeout: float | None) -> JobRecord | None:
        """Woken by commits, whichever process makes them; all who wait share one look."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[JobRecord | None] = loop.create_future()
        self._waiting[job_id].add(waiter)
        self._start_watching()
        self._woken.set()
        if timeout is not None and timeout <= 0:
            timeout = 0.0
        try:
            if timeout == 0:
                return await self._look_once(job_id)
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError:
            return None
        finally:
            self._waiting[job_id].discard(waiter)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def _look_once(self, job_id: str) -> JobRecord | None:
        [record] = await self.fetch([job_id])
        return record if record is not None and record.status.finished else None

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
            self._watcher.add_done_callback(self._watched)

    def _watched(self, watcher: asyncio.Task[None]) -> None:
        if self._watcher is watcher:  # it was cancelled before its first step
            self._watcher = None
        if watcher.cancelled() and self._waiting and not self._closing:
            # Somebody cancels every task that there is: those who wait must not wait for ever.
            self._start_watching()

    async def _watch(self) -> None:
        """Look for what is waited for, at each wake-up, until nobody waits."""
        unsubscribe: Callable[[], None] = self._link.wakeups.subscribe(Topic.RESULTS, self._woken.set)
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                self._woken.clear()
                begin = loop.time()
                ids = list(self._waiting)
                rows = await self._link.read(lambda session: session.rows_in(statements.read_finished, ids))  # noqa: B023
                now = self._store.now()
                for row in rows:
                    if _expires(row) > now:
                        self._tell(row[0], record_from(row))
                # Commits may come faster than many ids can be looked up: never look more than half of the time.
                await asyncio.sleep(loop.time() - begin if len(ids) > 50 else 0)
                timer = loop.call_later(self._link.wakeups.floor, self._woken.set)
                await self._woken.wait()
                timer.cancel()
        except Exception as error:  # noqa: BLE001 -- it is for those who wait
            for waiters in self._waiting.values():
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_exception(error)
        finally:
            unsubscribe()
            self._watcher = None

    def _tell(self, job_id: str, record: JobRecord | None) -> None:
        for waiter in self._waiting.get(job_id, ()):
            if not waiter.done():
                waiter.set_result(record)

    async def forget(self, job_ids: Sequence[str]) -> int:
        """One transaction."""
        if not job_ids:
            return 0
        ids, now = list(dict.fromkeys(job_ids)), self._store.now()
        return await self._link.write(lambda session: session.change_in(statements.delete_records, ids, (now,)))

    async def prune(self, before: int, *, only_successful: bool = False, limit: int = 1000) -> int:
        """Look without holding up others, then delete in one transaction.

        The ids of jobs that finished within `dedup_window` go on being recognised.
        """
        build = finished.some_succeeded if only_successful else finished.some_finished
        wanted = (Status.SUCCEEDED.value,) if only_successful else ()
        window = self._store.settings.dedup_window
        rows = await self._link.read(lambda session: session.rows(build, (before, *wanted, limit)))
        if not rows:
            return 0

        return await self._link.write(
            lambda session: forget(session, rows, self._store.now(), window, before=before), Need.NONE
        )

    @property
    def database(self) -> Store:
        """What its twins share with it."""
        return self._store

    def own_limits(self) -> Limits:
        """Limits in the same database."""
        return SqlLimits(self._store)

    def own_schedules(self) -> ScheduleStore:
        """Schedules in the same database."""
        return SqlScheduleStore(self._store)

    def own_workers(self) -> WorkerDirectory:
        """The directory of workers in the same database."""
        return SqlWorkerDirectory(self._store)

    def own_workflows(self) -> WorkflowStore:
        """Workflows in the same database."""
        return SqlWorkflowStore(self._store)

    def own_journal(self) -> Journal:
        """The journal in the same database."""
        return SqlJournal(self._store)

    def twin(self) -> Self:
        """Another backend on the same database, with a connection of its own."""
        return type(self).on(self._store)

    def abandon(self) -> None:
        """End the thread of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """End the thread and its connection."""
        self._closing = True
        for job_id in list(self._waiting):
            self._tell(job_id, None)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        await self._link.close()


def _expires(row: Sequence[object]) -> int:
    expires = row[12]
    return expires if isinstance(expires, int) else 0
