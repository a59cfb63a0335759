"""Moments in which a workflow could be lost, or a job be run twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, CancelResult
from camora.builtin.memory.broker import MemoryBroker
from camora.builtin.memory.results import MemoryResultBackend
from camora.dispatchable import Dispatchable
from camora.errors import BrokerUnavailable, JobCancelled, JobFailed
from camora.interfaces import START, Node, WorkflowRecord, WorkflowStore
from camora.outcome import JobRecord, Status
from camora.plugins import load
from camora.testing import TestWorker
from camora_workflows import chord, group, step, wait_for_signal, workflow
from camora_workflows.recording import Recorder
from camora_workflows.recovering import Recovery
from camora_workflows.settings import WorkflowSettings
from camora_workflows.sweeping import Sweeper, resume

from tests.workflows.shop import Shop

LIMIT = 60.0


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop("memory://")
    async with shop.app:
        yield shop


class Interrupted:
    """A store; before one of its methods does anything for the first time, something else happens."""

    def __init__(self, store: WorkflowStore, method: str, meanwhile: Callable[[], Awaitable[Any]]) -> None:
        self._store = store
        self._method = method
        self._meanwhile: Callable[[], Awaitable[Any]] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name == self._method and self._meanwhile is not None:
                meanwhile, self._meanwhile = self._meanwhile, None
                await meanwhile()
            return await method(*args, **kwargs)

        return call


async def store_of(shop: Shop) -> WorkflowStore:
    store = await (await shop.app.composer._host().stores()).workflows()  # type: ignore[attr-defined]
    assert store is not None
    return store  # type: ignore[no-any-return]


async def dispatched(shop: Shop, store: Any, what: Dispatchable[Any], asked_id: str) -> tuple[str, str]:
    composer: Any = shop.app.composer
    return await Recorder(composer.host, composer.following).dispatch(store, what, asked_id)


@pytest.mark.parametrize("moment", ["add", "start"])
async def test_the_slower_of_two_who_dispatch_under_one_id_deletes_nothing(shop: Shop, moment: str) -> None:
    def what() -> Any:
        return chord([shop.double.s(n) for n in range(3)], shop.total.s()).options(job_id="nightly")

    store = await store_of(shop)

    async def the_other() -> None:
        await what().dispatch()

    slow = Interrupted(store, moment, the_other)
    assert (await dispatched(shop, slow, what(), "nightly"))[0] == "nightly"
    async with shop.app.worker():
        assert await workflow(shop.app, "nightly").result(LIMIT) == 6
    assert sorted(shop.ran) == ["double 0", "double 1", "double 2", "total of 3"]


async def test_a_dead_letter_that_was_put_back_is_not_taken_for_lost(shop: Shop) -> None:
    """It goes on under the id that it had, in a later run of its node, and may wait in its queue for long."""
    composer: Any = shop.app.composer
    store = await store_of(shop)
    job = await chord([shop.fail.s(1), shop.double.s(2)], shop.total.s()).dispatch()
    async with shop.app.worker():
        with pytest.raises(JobFailed):
            await job.result(LIMIT)
    [letter] = [one async for one in shop.app.dead_letters()]
    shop.failing = False
    assert await shop.app.requeue(letter.id)
    record = await store.get(job.id)
    assert record is not None
    await resume(composer.host, composer.following, store, record)
    assert [one.id for one in await shop.app.broker.queues.list("default")] == [letter.id]
    assert [one.id async for one in job.members() if one.status == "queued"] == [letter.id]
    async with shop.app.worker():
        assert await job.result(LIMIT) == 5
    assert shop.ran.count("fail 1") == 2


async def test_a_dead_letter_that_was_put_back_is_stopped_with_its_workflow(shop: Shop) -> None:
    job = await chord([shop.fail.s(1), shop.double.s(2)], shop.total.s()).dispatch()
    async with shop.app.worker():
        with pytest.raises(JobFailed):
            await job.result(LIMIT)
    [letter] = [one async for one in shop.app.dead_letters()]
    assert await shop.app.requeue(letter.id)
    await job.cancel()
    assert await shop.app.broker.queues.find(letter.id) is None


async def test_a_workflow_that_cannot_be_read_keeps_nobody_from_looking_after_the_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one of a version to come, with nodes of a kind that nobody here knows."""
    composer: Any = shop.app.composer
    store = await store_of(shop)
    await store.create(WorkflowRecord(id="0", name="of a version to come"))
    await store.add("0", [Node(index=0, spec=b"\xc1", gate=START)])
    await store.start("0", b"\xc1", 0)

    async def dies(envelopes: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(composer.host, "publish", dies)
        with pytest.raises(RuntimeError, match="killed"):
            await dispatched(shop, store, group([shop.double.s(1)]), "1")
    sweeper = Sweeper(composer.host, composer.following, WorkflowSettings(quiet=0.001))
    while not await shop.app.broker.queues.list("default"):
        await sweeper.sweep(store)
        await asyncio.sleep(0.01)
    assert "workflow 0" in caplog.text


async def test_what_is_done_is_remembered_for_longer_than_finished_workflows_are_kept() -> None:
    """Else a job that waits, or that no worker takes for an hour, would do its steps again."""
    app = Camora(extensions={"workflows": {"keep": "1m"}})
    charged = []

    @app.task
    async def order() -> str:
        await step("charge", charged.append, 1)
        return str(await wait_for_signal("approved"))

    async with TestWorker(app) as worker:
        job = await order.dispatch()
        await worker.advance(hours=3)
        await app.signal(job.id, "approved", "yes")
        await worker.run_due()
        assert await job.result() == "yes"
    assert charged == [1]


async def test_a_workflow_that_travels_comes_to_something_else_when_its_dead_letter_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemoryBroker, "own_workflows", lambda self: None)
    monkeypatch.setattr(MemoryResultBackend, "own_workflows", lambda self: None)
    shop = Shop("memory://")
    async with shop.app:
        job = await (shop.fail.s(1) >> shop.double.s()).dispatch()
        async with shop.app.worker():
            with pytest.raises(JobFailed):
                await job.result(LIMIT)
        shop.failing = False
        [letter] = [one async for one in shop.app.dead_letters()]
        assert await shop.app.requeue(letter.id)
        async with shop.app.worker():
            assert await job.result(LIMIT) == 2


@pytest.mark.parametrize("at_hand", [10**9, 0], ids=["from memory", "from the store"])
async def test_what_is_cancelled_while_it_is_being_published_does_not_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, at_hand: int
) -> None:
    monkeypatch.setattr("camora_workflows.recording._AT_HAND", at_hand)
    monkeypatch.setattr("camora_workflows.recording._HAND_ON", 4)
    monkeypatch.setattr("camora_workflows.following._PAGE", 4)
    composer: Any = shop.app.composer
    publish, pages = composer.host.publish, []

    async def interrupted(envelopes: Any) -> Any:
        pages.append(len(envelopes))
        if len(pages) == 2:  # before the second page is in the broker, and after it was made
            assert await workflow(shop.app, "all").cancel() is CancelResult.REMOVED
        return await publish(envelopes)

    monkeypatch.setattr(composer.host, "publish", interrupted)
    await group(shop.notify.si(f"{n}") for n in range(20)).options(job_id="all").dispatch()
    assert list(await shop.app.broker.queues.list("default")) == []
    assert pages == [4, 4]


async def test_what_is_cancelled_while_it_is_about_to_begin_does_not_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its source has ended, and it is published with that job's settlement."""
    composer: Any = shop.app.composer
    job = await (shop.wait.s(1) >> shop.notify.si("next")).dispatch()
    follow = composer.following.follow

    async def then_cancelled(*given: Any) -> Any:
        found = await follow(*given)
        if not cancelled:
            cancelled.append(await job.cancel())
        return found

    cancelled: list[CancelResult] = []
    monkeypatch.setattr(composer.following, "follow", then_cancelled)
    shop.hold.set()
    async with shop.app.worker():
        with pytest.raises(JobCancelled):
            await job.result(LIMIT)
        while await shop.app.broker.queues.list("default"):
            await asyncio.sleep(0.01)
    assert cancelled
    assert "notify next" not in shop.ran


async def test_a_record_of_before_that_is_still_there_makes_nobody_ask_without_a_pause(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that a worker stored late, when the workflow had been told to try again already."""
    stores = await shop.app.composer._host().stores()  # type: ignore[attr-defined]
    job = await group([shop.wait.s(1)]).dispatch()
    await stores.results.store([JobRecord(id=job.id, status=Status.FAILED, finished=1)])
    wait, asked = stores.results.wait, []

    async def counted(*given: Any) -> Any:
        asked.append(given)
        return await wait(*given)

    monkeypatch.setattr(stores.results, "wait", counted)
    async with shop.app.worker():
        waiting = asyncio.create_task(job.result(LIMIT))
        await shop.held.wait()
        for _ in range(1000):
            await asyncio.sleep(0)
        shop.hold.set()
        assert await waiting == [1]
    assert len(asked) < 50


async def test_who_stood_still_before_he_published_does_not_do_it_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have gone on meanwhile, and it may be so long ago that the broker has forgotten the ids of these jobs."""
    monkeypatch.setattr("camora_workflows.recording._FRESH", 0.0)
    composer: Any = shop.app.composer
    store = await store_of(shop)
    publish, published = composer.host.publish, []

    class Standing:
        """Stands still when it has started."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def start(self, *given: Any) -> bool:
            started = await store.start(*given)
            record = await store.get("all")
            assert record is not None
            await resume(composer.host, composer.following, store, record)
            async with shop.app.worker():
                assert await workflow(shop.app, "all").result(LIMIT) == ["0", "1"]
            published.clear()
            return started

    async def noted(envelopes: Any) -> Any:
        published.extend(envelope.id for envelope in envelopes)
        return await publish(envelopes)

    monkeypatch.setattr(composer.host, "publish", noted)
    await dispatched(shop, Standing(), group(shop.notify.si(f"{n}") for n in range(2)), "all")
    assert published == []


async def test_what_is_tried_again_and_cancelled_in_the_same_moment_does_not_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    composer: Any = shop.app.composer
    job = await group([shop.fail.s(1), shop.fail.s(2)]).dispatch()
    async with shop.app.worker():
        with pytest.raises(JobFailed):
            await job.result(LIMIT)
        while (await job.info()).status is not Status.FAILED or await shop.app.broker.queues.list("default"):
            await asyncio.sleep(0.01)
    publish = composer.host.publish

    async def interrupted(envelopes: Any) -> Any:
        await job.cancel()
        return await publish(envelopes)

    monkeypatch.setattr(composer.host, "publish", interrupted)
    await job.retry()
    assert list(await shop.app.broker.queues.list("default")) == []


async def test_what_runs_at_most_once_by_choice_is_not_run_twice_by_who_mends(shop: Shop) -> None:
    """Its message is gone while it runs, so the broker does not have it; if its worker died, it has failed."""
    composer: Any = shop.app.composer
    store = await store_of(shop)
    ran = []

    @shop.app.task(name="once", ack="before")
    async def once() -> int:
        ran.append(1)
        shop.held.set()
        await shop.hold.wait()
        return 1

    async def mended(quiet: float) -> None:
        recovery = Recovery(composer.host, composer.following, store, abandon=3600, quiet=quiet)
        record = await store.get(job.id)
        assert record is not None
        await recovery.one(record, dry_run=False)

    job = await group([once.s()]).dispatch()
    async with shop.app.worker():
        await shop.held.wait()
        await mended(3600)
        shop.hold.set()
        assert await job.result(LIMIT) == [1]
    shop.hold.clear()
    shop.held.clear()
    job = await group([once.s()]).dispatch()
    async with shop.app.worker():
        await shop.held.wait()
        await mended(0)
        with pytest.raises(JobFailed, match="acknowledged before it ran"):
            await job.result(LIMIT)
        shop.hold.set()
    assert ran == [1, 1]


async def test_a_worker_that_knows_nothing_of_workflows_leaves_something_to_mend(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/camora.db"
    shop, other = Shop(url), Shop(url, catalog=load(disable=["camora-workflows"]))
    async with shop.app, other.app:
        composer: Any = shop.app.composer
        store = await store_of(shop)
        job = await group([shop.notify.si("here")]).dispatch()
        async with other.app.worker():
            while await shop.app.broker.queues.list("default"):
                await asyncio.sleep(0.01)
        assert other.ran == ["notify here"]
        record = await store.get(job.id)
        assert record is not None
        recovery = Recovery(composer.host, composer.following, store, abandon=3600, quiet=3600)
        found = await recovery.one(record, dry_run=False)
        assert found is not None
        assert found.mended
        async with shop.app.worker():
            assert await job.result(LIMIT) == ["here"]


async def test_what_follows_a_job_that_was_acknowledged_before_is_published_when_the_broker_is_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody runs that job again, so nobody else would publish it."""
    monkeypatch.setattr("camora.worker.ending._PAUSES", (0.0,))
    publish, refused = MemoryBroker.publish, []

    async def away(self: Any, envelopes: Any) -> Any:
        if envelopes[0].task == "double" and len(refused) < 10:
            refused.append(envelopes)
            raise BrokerUnavailable("away")
        return await publish(self, envelopes)

    monkeypatch.setattr(MemoryBroker, "publish", away)

    @shop.app.task(name="once", ack="before")
    async def once() -> int:
        return 1

    job = await (once.s() >> shop.double.s()).dispatch()
    async with shop.app.worker():
        assert await job.result(10) == 2
    assert len(refused) == 10
