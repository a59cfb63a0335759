"""The exam of a directory of workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import pytest_asyncio

from camora.interfaces.workers import Order, RunningJob, WorkerDirectory, WorkerInfo
from camora.testing.conformance.elsewhere import all_at_once, elsewhere

__all__ = ["WorkerDirectoryConformance"]

_LONG = 600.0

_FULL = WorkerInfo(
    name="host-1-ab",
    kind="scheduler",
    host="höst",
    pid=4_194_304,
    app="shop.tasks:app",
    version="0.1.0",
    queues=("default", "a mail"),
    concurrency=100,
    state="quiet",
    running=tuple(
        RunningJob(id=f"job-{number}", task="module:täsk", queue="default", since=1_700_000_000_000 + number)
        for number in range(20)
    ),
    busy=31,
    settled=5_000_000_000,
    cpu=1.75,
    memory=9_000_000_000,
    started=1_700_000_000_001,
    polled=1_700_000_000_002,
    seen=1_700_000_000_003,
)


def _worker(name: str, **changes: object) -> WorkerInfo:
    return msgspec.structs.replace(WorkerInfo(name=name), **changes)


@pytest.mark.asyncio
class WorkerDirectoryConformance:
    """Override `directory_factory`."""

    ttl: float = 0.5
    """Seconds of the reports that tests let lapse: as short as the store can do reliably."""
    patience: float = 20.0
    """Seconds after which a lapsed worker that is still listed is taken for never forgotten."""

    @pytest.fixture
    def directory_factory(self) -> Callable[[], WorkerDirectory]:
        """Makes an unopened directory on an empty store of its own, each time it is called."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture directory_factory")

    @pytest_asyncio.fixture
    async def directory(self, directory_factory: Callable[[], WorkerDirectory]) -> AsyncIterator[WorkerDirectory]:
        """The directory under test, open."""
        made = directory_factory()
        await made.open()
        try:
            yield made
        finally:
            await made.close()

    async def _names(self, directory: WorkerDirectory) -> list[str]:
        return [info.name for info in await directory.list()]

    async def _until_gone(self, directory: WorkerDirectory, name: str) -> None:
        deadline = time.monotonic() + self.patience
        while name in await self._names(directory):
            assert time.monotonic() < deadline, f"{name} is still listed, {self.patience} s after its time"
            await asyncio.sleep(self.ttl / 5)

    # Reporting

    async def test_an_empty_one_lists_nobody(self, directory: WorkerDirectory) -> None:
        assert list(await directory.list()) == []

    async def test_a_report_is_kept_whole(self, directory: WorkerDirectory) -> None:
        assert list(await directory.report(_FULL, ttl=_LONG)) == []
        assert list(await directory.list()) == [_FULL]

    async def test_the_latest_report_counts(self, directory: WorkerDirectory) -> None:
        await directory.report(_FULL, ttl=_LONG)
        later = _worker(_FULL.name, state="stopping", settled=7)
        await directory.report(later, ttl=_LONG)
        assert list(await directory.list()) == [later]

    async def test_they_are_listed_by_name(self, directory: WorkerDirectory) -> None:
        for name in ("c", "a", "B", "b"):
            await directory.report(_worker(name), ttl=_LONG)
        assert await self._names(directory) == ["B", "a", "b", "c"]

    async def test_names_are_told_apart_exactly(self, directory: WorkerDirectory) -> None:
        names = ["a", "A", "ä", "a%", "a_", "a'b"]
        for name in names:
            await directory.report(_worker(name), ttl=_LONG)
        await directory.remove("a_")
        assert await directory.order("a%", "stop")
        assert sorted(await self._names(directory)) == sorted(set(names) - {"a_"})
        for name in ("a", "A", "ä"):
            assert list(await directory.report(_worker(name), ttl=_LONG)) == []

    # Lapsing

    async def test_a_silent_worker_is_forgotten(self, directory: WorkerDirectory) -> None:
        await directory.report(_worker("silent"), ttl=self.ttl)
        await directory.report(_worker("alive"), ttl=_LONG)
        await self._until_gone(directory, "silent")
        assert await self._names(directory) == ["alive"]
        assert not await directory.order("silent", "stop")

    async def test_a_report_makes_it_live_on(self, directory: WorkerDirectory) -> None:
        await directory.report(_worker("witness"), ttl=self.ttl)
        await directory.report(_worker("alive"), ttl=self.ttl)
        await directory.report(_worker("alive"), ttl=_LONG)
        await self._until_gone(directory, "witness")
        assert await self._names(directory) == ["alive"]

    async def test_one_that_comes_back_hears_no_old_orders(self, directory: WorkerDirectory) -> None:
        await directory.report(_worker("w"), ttl=self.ttl)
        assert await directory.order("w", "stop")
        await self._until_gone(directory, "w")
        assert list(await directory.report(_worker("w"), ttl=_LONG)) == []

    # Orders

    async def test_an_order_is_heard_once(self, directory: WorkerDirectory) -> None:
        await directory.report(_worker("w"), ttl=_LONG)
        assert await directory.order("w", "quiet")
        assert list(await directory.report(_worker("w"), ttl=_LONG)) == ["quiet"]
        assert list(await directory.report(_worker("w"), ttl=_LONG)) == []

    async def test_orders_are_heard_in_order(self, directory: WorkerDirectory) -> None:
        await directory.report(_worker("w"), ttl=_LONG)
        given: list[Order] = ["quiet", "resume", "quiet", "quiet", "stop"]
        for order in given:
            assert await directory.order("w", order)
        assert list(await directory.report(_worker("w"), ttl=_LONG)) == given

    async def test_an_order_reaches_only_its_worker(self, directory: WorkerDirectory) -> None:
        for name in ("one", "two"):
            await directory.report(_worker(name), ttl=_LONG)
        assert await directory.order("one", "stop")
        assert list(await directory.report(_worker("two"), ttl=_LONG)) == []
        assert list(await directory.report(_worker("one"), ttl=_LONG)) == ["stop"]

    async def test_nobody_hears_an_order_for_a_stranger(self, directory: WorkerDirectory) -> None:
        assert not await directory.order("nobody", "stop")
        assert list(await directory.report(_worker("nobody"), ttl=_LONG)) == []

    # Removing

    async def test_one_that_was_removed_is_gone_with_its_orders(self, directory: WorkerDirectory) -> None:
        await directory.report(_worker("w"), ttl=_LONG)
        await directory.order("w", "stop")
        await directory.remove("w")
        assert list(await directory.list()) == []
        assert not await directory.order("w", "quiet")
        assert list(await directory.report(_worker("w"), ttl=_LONG)) == []

    async def test_removing_may_be_repeated(self, directory: WorkerDirectory) -> None:
        await directory.remove("never-was")
        await directory.report(_worker("w"), ttl=_LONG)
        await directory.remove("w")
        await directory.remove("w")

    # Several

    async def test_twins_share_everything(self, directory: WorkerDirectory) -> None:
        twin = directory.twin()
        await twin.open()
        await directory.report(_FULL, ttl=_LONG)
        assert list(await twin.list()) == [_FULL]
        assert await twin.order(_FULL.name, "quiet")
        await twin.close()
        await twin.close()
        assert list(await directory.report(_FULL, ttl=_LONG)) == ["quiet"]

    async def test_a_twin_serves_another_thread(self, directory: WorkerDirectory) -> None:
        await directory.report(_worker("w"), ttl=_LONG)
        twin = directory.twin()

        async def order() -> bool:
            await twin.open()
            try:
                return await twin.order("w", "resume")
            finally:
                await twin.close()

        assert await elsewhere(order)
        assert list(await directory.report(_worker("w"), ttl=_LONG)) == ["resume"]

    async def test_no_order_is_lost_or_doubled_between_reports(self, directory: WorkerDirectory) -> None:
        await directory.report(_worker("w"), ttl=_LONG)
        heard: list[Order] = []

        async def give() -> None:
            twin = directory.twin()
            await twin.open()
            try:
                for _ in range(10):
                    assert await twin.order("w", "quiet")
            finally:
                await twin.close()

        async def report() -> None:
            twin = directory.twin()
            await twin.open()
            try:
                for _ in range(10):
                    heard.extend(await twin.report(_worker("w"), ttl=_LONG))
            finally:
                await twin.close()

        await all_at_once(give, give, report, report)
        heard.extend(await directory.report(_worker("w"), ttl=_LONG))
        assert heard == ["quiet"] * 20
