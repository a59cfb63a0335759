"""The exam of a result backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import pytest_asyncio

from camora.interfaces.results import ResultBackend
from camora.outcome import ErrorInfo, JobRecord, Progress, Status
from camora.testing.conformance.elsewhere import all_at_once, elsewhere
from camora.testing.conformance.making import fresh_id, job_record

__all__ = ["ResultBackendConformance"]

_FINISHED = [status for status in Status if status.finished]


@pytest.mark.asyncio
class ResultBackendConformance:
    """Override `results_factory`."""

    patience: float = 20.0
    """Seconds after which a result that has not come is taken for lost."""
    prompt: float = 2.0
    """Seconds within which a waiter must notice a record stored by somebody else."""
    ttl: float = 0.5
    """Seconds of the records that tests let end: as short as the store can do reliably."""

    @pytest.fixture
    def results_factory(self) -> Callable[[], ResultBackend]:
        """Makes an unopened backend on an empty store of its own, each time it is called."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture results_factory")

    @pytest_asyncio.fixture
    async def results(self, results_factory: Callable[[], ResultBackend]) -> AsyncIterator[ResultBackend]:
        """The backend under test, open."""
        backend = results_factory()
        await backend.open()
        try:
            yield backend
        finally:
            await backend.close()

    # Keeping

    async def test_what_is_unknown_is_none(self, results: ResultBackend) -> None:
        assert list(await results.fetch(["never-was"])) == [None]
        assert list(await results.fetch([])) == []
        await results.store([])
        assert await results.forget(["never-was"]) == 0
        assert await results.forget([]) == 0

    @pytest.mark.parametrize("status", _FINISHED, ids=str)
    async def test_a_record_is_kept_whole(self, results: ResultBackend, status: Status) -> None:
        record = JobRecord(
            id=fresh_id(),
            status=status,
            task="module:täsk",
            queue="a queue",
            value=bytes(range(256)) if status is Status.SUCCEEDED else None,
            kept=status is Status.SUCCEEDED,
            error=ErrorInfo(type="a.Error", text="ü\n'\"", traceback="Traceback …", timeout=True),
            attempts=7,
            created=1_700_000_000_001,
            started=1_700_000_000_002,
            finished=1_700_000_000_003,
            worker="host-1:2",
            progress=Progress(done=3, total=4.5, text="almost"),
            ttl=3600.0,
        )
        await results.store([record])
        [fetched] = await results.fetch([record.id])
        assert fetched is not None
        assert fetched == _with_ttl_of(record, fetched)

    async def test_an_empty_value_is_not_no_value(self, results: ResultBackend) -> None:
        empty, none = job_record(fresh_id(), value=b""), job_record(fresh_id(), value=None)
        await results.store([empty, none])
        [first, second] = await results.fetch([empty.id, none.id])
        assert first is not None
        assert second is not None
        assert (first.value, second.value) == (b"", None)

    async def test_a_value_of_a_mebibyte_is_kept_whole(self, results: ResultBackend) -> None:
        value = bytes(range(256)) * 4096
        record = job_record(fresh_id(), value=value)
        await results.store([record])
        [fetched] = await results.fetch([record.id])
        assert fetched is not None
        assert fetched.value == value

    async def test_records_are_fetched_in_the_order_asked_for(self, results: ResultBackend) -> None:
        ids = [fresh_id() for _ in range(120)]
        await results.store([job_record(job_id, value=job_id.encode()) for job_id in reversed(ids)])
        asked = [ids[5], "never-was", ids[119], ids[0], ids[5], *ids]
        fetched = await results.fetch(asked)
        values = [None if record is None else record.value for record in fetched]
        assert values == [None if job_id == "never-was" else job_id.encode() for job_id in asked]

    # First writer wins

    async def test_the_first_finished_record_stands(self, results: ResultBackend) -> None:
        job_id = fresh_id()
        await results.store([job_record(job_id, value=b"first")])
        await results.store([job_record(job_id, value=b"second"), job_record(job_id, Status.CANCELLED)])
        await results.store([job_record(job_id, Status.RUNNING, progress=Progress(done=1))])
        [record] = await results.fetch([job_id])
        assert record is not None
        assert (record.status, record.value) == (Status.SUCCEEDED, b"first")

    async def test_the_first_finished_record_of_one_batch_stands(self, results: ResultBackend) -> None:
        job_id = fresh_id()
        await results.store(
            [
                job_record(job_id, Status.RUNNING),
                job_record(job_id, Status.FAILED),
                job_record(job_id),
            ]
        )
        [record] = await results.fetch([job_id])
        assert record is not None
        assert record.status is Status.FAILED

    async def test_of_many_threads_that_finish_one_job_one_wins(self, results: ResultBackend) -> None:
        job_id = fresh_id()

        async def finish() -> bytes | None:
            twin = results.twin()
            await twin.open()
            try:
                await twin.store([job_record(job_id, value=fresh_id().encode())])
                [record] = await twin.fetch([job_id])
            finally:
                await twin.close()
            assert record is not None
            return record.value

        seen = await all_at_once(*[finish] * 4)
        assert len(set(seen)) == 1

    async def test_progress_replaces_progress(self, results: ResultBackend) -> None:
        job_id = fresh_id()
        for done in (1, 2):
            await results.store([job_record(job_id, Status.RUNNING, progress=Progress(done=done, total=2))])
            [record] = await results.fetch([job_id])
            assert record is not None
            assert record.progress == Progress(done=done, total=2)
        await results.store([job_record(job_id)])
        [record] = await results.fetch([job_id])
        assert record is not None
        assert record.status is Status.SUCCEEDED

    async def test_forgetting_makes_room_for_another_result(self, results: ResultBackend) -> None:
        first, second = fresh_id(), fresh_id()
        await results.store([job_record(first, Status.FAILED), job_record(second)])
        assert await results.forget([first, "never-was"]) == 1
        assert await results.forget([first]) == 0
        assert (await results.fetch([first, second]))[0] is None
        await results.store([job_record(first, value=b"anew")])
        [record] = await results.fetch([first])
        assert record is not None
        assert record.value == b"anew"

    async def test_a_record_ends_with_its_ttl_and_not_before(self, results: ResultBackend) -> None:
        short, long = job_record(fresh_id(), ttl=self.ttl), job_record(fresh_id(), ttl=3600.0)
        begin = time.monotonic()
        await results.store([short, long])
        while (await results.fetch([short.id]))[0] is not None:
            assert time.monotonic() - begin < self.ttl + self.patience, "the record does not end"
            # Waiting for what will never come is how this test lets time pass.
            await results.wait("never-was", self.ttl / 5)
        assert time.monotonic() - begin >= self.ttl * 0.9
        assert (await results.fetch([long.id]))[0] is not None

    async def test_a_record_may_be_stored_again_once_its_time_is_over(self, results: ResultBackend) -> None:
        job_id = fresh_id()
        await results.store([job_record(job_id, value=b"old", ttl=self.ttl)])
        await results.wait("never-was", self.ttl * 1.5)
        await results.store([job_record(job_id, value=b"new")])
        [record] = await results.fetch([job_id])
        assert record is not None
        assert record.value == b"new"

    # Waiting

    async def test_waiting_for_what_is_there_answers_at_once(self, results: ResultBackend) -> None:
        record = job_record(fresh_id())
        await results.store([record])
        for timeout in (self.patience, 0, None):
            begin = time.monotonic()
            waited = await results.wait(record.id, timeout)
            assert waited is not None
            assert waited.value == record.value
            assert time.monotonic() - begin < self.prompt

    async def test_waiting_ends_with_none_after_the_timeout(self, results: ResultBackend) -> None:
        for timeout in (0, 0.2):
            begin = time.monotonic()
            assert await results.wait("never-was", timeout) is None
            assert timeout * 0.9 <= time.monotonic() - begin < timeout + self.prompt

    async def test_progress_does_not_end_waiting(self, results: ResultBackend) -> None:
        job_id = fresh_id()
        waiting = asyncio.create_task(results.wait(job_id, self.patience))
        await asyncio.sleep(0)
        await results.store([job_record(job_id, Status.RUNNING), job_record(job_id, Status.RETRYING)])
        assert await results.wait("never-was", 0.1) is None
        assert not waiting.done()
        await results.store([job_record(job_id)])
        record = await waiting
        assert record is not None
        assert record.status is Status.SUCCEEDED

    async def test_a_record_stored_in_another_thread_ends_waiting_every_time(self, results: ResultBackend) -> None:
        for _ in range(10):
            job_id = fresh_id()
            waiting = asyncio.create_task(results.wait(job_id, self.patience))

            async def store() -> float:
                twin = results.twin()
                await twin.open()
                await twin.store([job_record(job_id)])  # noqa: B023 -- called before the next round
                stored = time.monotonic()
                await twin.close()
                return stored

            stored = await elsewhere(store)
            record = await waiting
            assert record is not None
            assert record.id == job_id
            assert time.monotonic() - stored < self.prompt, "the record was noticed late"

    async def test_many_may_wait_for_one_and_one_for_many(self, results: ResultBackend) -> None:
        ids = [fresh_id() for _ in range(30)]
        waiting = [
            asyncio.create_task(results.wait(job_id, self.patience)) for job_id in [*ids, ids[0], ids[0], ids[0]]
        ]
        await asyncio.sleep(0)
        await results.store([job_record(job_id, value=job_id.encode()) for job_id in ids])
        records = await asyncio.gather(*waiting)
        assert [record and record.id for record in records] == [*ids, ids[0], ids[0], ids[0]]

    async def test_one_waiter_s_cancellation_does_not_touch_the_others(self, results: ResultBackend) -> None:
        job_id = fresh_id()
        leaving, staying = [asyncio.create_task(results.wait(job_id, self.patience)) for _ in range(2)]
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await results.store([job_record(job_id)])
        record = await staying
        assert record is not None

    # Life and end

    async def test_closing_ends_pending_waits_with_none(self, results: ResultBackend) -> None:
        twin = results.twin()
        await twin.open()
        waiting = [asyncio.create_task(twin.wait("never-was", timeout)) for timeout in (self.patience, None)]
        await asyncio.sleep(0.05)
        await twin.close()
        async with asyncio.timeout(self.prompt):
            assert await asyncio.gather(*waiting) == [None, None]

    async def test_closing_may_be_repeated_and_leaves_twins_at_work(self, results: ResultBackend) -> None:
        twin = results.twin()
        await twin.open()
        record = job_record(fresh_id())
        await twin.store([record])
        await twin.close()
        await twin.close()
        await results.twin().close()
        [fetched] = await results.fetch([record.id])
        assert fetched is not None


def _with_ttl_of(record: JobRecord, fetched: JobRecord) -> JobRecord:
    """How long a record is kept is the store's to remember, in whatever form."""
    return msgspec.structs.replace(record, ttl=fetched.ttl)
