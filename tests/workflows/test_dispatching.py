"""Dispatching workflows to real workers: what they come to, what is refused, and what a handle answers."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from camora import Message, Middleware, RetryPolicy, Status
from camora.errors import (
    DispatchError,
    JobCancelled,
    JobDiscarded,
    JobExpired,
    JobFailed,
    MessageTooLarge,
    ResultExpired,
    ResultTimeout,
)
from camora.interfaces import WorkflowRecord
from camora.outcome import CancelResult
from camora.settings import AppSettings
from camora.testing import TestWorker
from camora_workflows import Graph, WorkflowJob, chain, chord, group, workflow

from tests.servers.fixtures import fresh_url
from tests.workflows.shop import Order, Shop

LIMIT = 60.0


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/camora.db"


async def come(what: Callable[[], Any]) -> Any:
    """Wait until this is true."""
    async with asyncio.timeout(LIMIT):
        while True:
            found = what()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


async def over(job: Any) -> dict[int, str]:
    """How all members have ended, once all have."""

    async def statuses() -> list[dict[int, str]]:
        found = {member.index: member.status async for member in job.members()}
        return [] if {"waiting", "queued"} & set(found.values()) else [found]

    [found] = await come(statuses)
    return dict(found)


async def stored(shop: Shop, workflow_id: str) -> Any:
    stores = await shop.app.composer._host().stores()  # type: ignore[attr-defined]
    return await (await stores.workflows()).get(workflow_id)


# What is promised, word for word


async def test_what_is_promised(url: str) -> None:
    shop = Shop(url)
    add, double, notify, total = shop.add, shop.double, shop.notify, shop.total
    async with shop.app, shop.app.worker():
        job = await (add.s(1, 2) >> double.s() >> notify.si("done")).dispatch()
        assert await job.result(LIMIT) == "done"
        assert shop.ran == ["double 3", "notify done"]

        await chain(add.s(1, 2), shop.fail.s(), double.s(), on_failure=notify.si("alert")).dispatch()
        await come(lambda: "notify alert" in shop.ran)

        sums = await group(add.s(i, i) for i in range(100)).dispatch()
        assert await sums.result(LIMIT) == [2 * i for i in range(100)]

        summary = await chord([add.s(i, i) for i in range(50)], total.s()).dispatch()
        assert await summary.result(LIMIT) == 2450
        assert shop.ran.count("total of 50") == 1

        sig = add.s(3, 4)
        sig.on_success = notify.si("receipt")
        sig.on_failure = notify.si("refund")
        charged = await sig.dispatch()
        assert await charged.result(LIMIT) == 7
        await come(lambda: "notify receipt" in shop.ran)
        assert "notify refund" not in shop.ran


COMPOSITIONS: dict[str, tuple[Callable[[Shop], Any], Any]] = {
    "chain of one": (lambda s: chain(s.add.s(1, 2)), 3),
    "immutable in the middle": (lambda s: s.add.s(1, 2) >> s.notify.si("x") >> s.add.si(5, 5), 10),
    "arguments after the result": (lambda s: s.add.s(1, 2) >> s.add.s(10), 13),
    "by name": (lambda s: s.add.s(1, 2) >> s.add.s(y=10), 13),
    "group in the middle": (lambda s: s.add.s(1, 2) >> group(s.double.s(), s.add.s(5)) >> s.total.s(), 14),
    "two groups": (lambda s: group(s.add.s(i, 0) for i in range(3)) >> group(s.total.s(), s.total.s()), [3, 3]),
    "chains in a group": (lambda s: group(s.add.s(i, 1) >> s.double.s() for i in range(3)), [2, 4, 6]),
    "groups in a group": (lambda s: group(group(s.add.s(1, 1)), group(), s.add.s(2, 2)), [[2], [], 4]),
    "chord in a chain": (
        lambda s: s.add.s(1, 1) >> chord([s.double.s(), s.add.s(3)], s.total.s()) >> s.double.s(),
        18,
    ),
    "chord in a group": (lambda s: group(chord([s.add.s(i, 1)], s.total.s()) for i in range(2)), [1, 2]),
    "map": (lambda s: s.double.map([3, 1, 2]), [6, 2, 4]),
    "map and then": (lambda s: s.double.map(iter(range(4))) >> s.total.s(), 12),
    "map as a later step": (lambda s: s.notify.si("first") >> s.double.map([1, 2]) >> s.total.s(), 6),
    "chunks": (lambda s: s.double.chunks(range(7), 3), [0, 2, 4, 6, 8, 10, 12]),
    "chunks and then": (lambda s: s.double.chunks(range(7), 3) >> s.total.s(), 42),
    "no members": (lambda s: s.add.s(1, 1) >> group([]) >> s.total.s(), 0),
    "only no members": (lambda _: group(group([]), group([])), [[], []]),
    "rich values": (lambda s: s.order.map([1, 2]) >> s.numbers.s(), [2, 4]),
    "graph": (
        lambda s: (
            Graph()
            .add("a", s.add.s(1, 1))
            .add("b", s.double.s(), after=["a"])
            .add("c", s.total.s(), after=["b", "a"])
            .add("d", group(s.double.s(), s.double.si(4)), after=["a"])
            .add("e", group(s.total.s(), s.total.s()), after=["b", "c"])
        ),
        {"a": 2, "b": 4, "c": 6, "d": [4, 8], "e": [10, 10]},
    ),
    "chain in a graph": (
        lambda s: Graph().add("a", s.add.s(1, 1) >> s.double.s()).add("b", s.double.s() >> s.add.s(1), after=["a"]),
        {"a": 4, "b": 9},
    ),
    "graph in a chain": (lambda s: s.add.s(1, 1) >> Graph().add("a", s.double.s()) >> s.notify.si("x"), "x"),
    "graph in a group": (lambda s: group([Graph().add("a", s.add.s(1, 1)), s.add.s(0, 0)]), [{"a": 2}, 0]),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
async def test_what_compositions_come_to(name: str) -> None:
    make, value = COMPOSITIONS[name]
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        job = await shop.app.dispatch(make(shop))
        assert await job.result(LIMIT) == value
        again = await shop.app.job(job.id)
        assert await again.result(LIMIT) == value
        assert set((await over(job)).values()) <= {"succeeded"}
        await come(lambda: finished(shop, job.id))


async def finished(shop: Shop, workflow_id: str) -> bool:
    record = await stored(shop, workflow_id)
    return record is not None and record.state == "finished" and record.status == "succeeded"


async def test_many_compositions_on_a_database(tmp_path: Path) -> None:
    shop = Shop(f"sqlite:///{tmp_path}/camora.db")
    async with shop.app, shop.app.worker():
        jobs = {name: await shop.app.dispatch(make(shop)) for name, (make, _) in COMPOSITIONS.items()}
        assert {name: await job.result(LIMIT) for name, job in jobs.items()} == {
            name: value for name, (_, value) in COMPOSITIONS.items()
        }


async def test_results_arrive_as_their_types() -> None:
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        expected = [Order(1, date(2030, 1, 1)), Order(2, date(2030, 1, 2))]
        for what in (shop.order.map([1, 2]), shop.order.chunks([1, 2], 2), group(shop.order.s(1), shop.order.s(2))):
            job = await what.dispatch()
            assert await job.result(LIMIT) == expected
        graph = await Graph().add("one", shop.order.s(1)).dispatch()
        assert await graph.result(LIMIT) == {"one": expected[0]}
        assert await (await (shop.add.s(0, 1) >> shop.order.s()).dispatch()).result(LIMIT) == expected[0]


async def test_through_redis() -> None:
    shop = Shop(fresh_url("redis"))
    async with shop.app, shop.app.worker():
        job = await (shop.add.s(1, 2) >> group(shop.double.s(), shop.add.s(5)) >> shop.total.s()).dispatch()
        assert await job.result(LIMIT) == 14
        assert await (await shop.double.chunks(range(5), 2).dispatch()).result(LIMIT) == [0, 2, 4, 6, 8]


# Callbacks and failures


async def test_on_failure_runs_once_all_tries_are_used_up() -> None:
    shop = Shop("memory://")
    never, late = shop.flaky.s(good=9), shop.flaky.s(good=3)
    never.on_failure = late.on_failure = shop.alert.s()
    late.on_success = shop.notify.si("well")
    async with shop.app, shop.app.worker():
        job = await late.dispatch()
        assert await job.result(LIMIT) == 3
        await come(lambda: "notify well" in shop.ran)
        assert shop.ran == ["flaky 1", "flaky 2", "flaky 3", "notify well"]
        shop.ran.clear()
        with pytest.raises(JobFailed, match="flaky .* failed after 3 attempts: ValueError: not yet"):
            await (await never.dispatch()).result(LIMIT)
        await come(lambda: shop.told)
        assert shop.ran == ["flaky 1", "flaky 2", "flaky 3", "alert"]
        [told] = shop.told
        assert (told.task, told.error_type, told.error_text, told.status) == (
            "flaky",
            "ValueError",
            "not yet",
            "failed",
        )


async def test_a_returned_failure_is_one() -> None:
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        job = await chain(shop.refuse.s(), shop.notify.si("never"), on_failure=shop.alert.s()).dispatch()
        with pytest.raises(JobFailed, match="no such user"):
            await job.result(LIMIT)
        await come(lambda: shop.told)
        assert shop.told[0].error_text == "no such user"
        assert shop.ran == ["alert"]


async def test_a_failure_is_told_with_its_traceback_and_skips_what_comes_after() -> None:
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        graph = (
            Graph()
            .add("a", shop.add.s(1, 1))
            .add("bad", shop.fail.s(), after=["a"], on_failure=shop.alert.s())
            .add("good", shop.double.s(), after=["a"])
            .add("end", shop.total.s(), after=["bad", "good"])
        )
        job = await graph.dispatch()
        with pytest.raises(JobFailed) as caught:
            await job.result(LIMIT)
        assert f"workflow {job.id}: bad (fail {job.id}." in str(caught.value)
        assert 'raise ValueError(f"no {x}")' in caught.value.traceback
        assert caught.value.job_id == job.id
        await over(job)
        assert isinstance(job, WorkflowJob)
        members = {member.name or member.task: member async for member in job.members()}
        assert {name: member.status for name, member in members.items()} == {
            "a": "succeeded",
            "bad": "failed",
            "alert": "succeeded",
            "good": "succeeded",
            "end": "skipped",
        }
        assert members["end"].cause == "failed"
        assert members["bad"].attempts == 1
        assert members["bad"].error is not None
        assert members["bad"].started is not None
        assert members["bad"].id == f"{job.id}.{members['bad'].index}"
        assert shop.told[0].job_id == members["bad"].id
        info = await job.info()
        assert (info.status, info.error and info.error.text, info.task) == (
            Status.FAILED,
            "no 2",
            "Graph(a, bad, good, end)",
        )


async def test_one_failed_member_skips_the_body_at_once() -> None:
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        job = await chord([shop.wait.s(1), shop.fail.s(2)], shop.total.s(), on_failure=shop.alert.s()).dispatch()
        with pytest.raises(JobFailed, match="no 2"):
            await job.result(LIMIT)
        await come(lambda: shop.told)
        assert not any(text.startswith("total") for text in shop.ran)
        shop.hold.set()
        assert sorted((await over(job)).values()) == ["failed", "skipped", "succeeded", "succeeded"]


async def test_discarding_ends_a_branch_and_is_no_failure() -> None:
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        job = await chain(shop.discard.s(), shop.double.s(), on_failure=shop.alert.s()).dispatch()
        with pytest.raises(JobDiscarded, match="not wanted"):
            await job.result(LIMIT)
        assert sorted((await over(job)).values()) == ["discarded", "skipped", "skipped"]
        assert shop.ran == []


async def test_a_callback_that_fails_changes_nothing_of_the_result() -> None:
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        job = await chain(shop.add.s(1, 2), on_success=shop.fail.s()).dispatch()
        assert await job.result(LIMIT) == 3
        assert sorted((await over(job)).values()) == ["failed", "succeeded"]
        assert await job.status() is Status.SUCCEEDED


# Options of members


async def test_delays_count_from_when_a_job_may_begin() -> None:
    shop = Shop("memory://")
    async with TestWorker(shop.app) as worker:
        later = shop.add.options(delay=60).s(1, 2) >> shop.double.options(delay=3600).s()
        job = await later.dispatch()
        await worker.advance(seconds=59)
        assert [member.status async for member in workflow(shop.app, job.id).members()] == ["queued", "waiting"]
        await worker.advance(seconds=2)
        assert [member.status async for member in workflow(shop.app, job.id).members()] == ["succeeded", "queued"]
        await worker.advance(seconds=3590)
        assert shop.ran == []
        await worker.advance(seconds=10)
        assert await job.result(LIMIT) == 6


async def test_an_eta_is_a_moment_and_expiry_counts_from_when_a_job_may_begin() -> None:
    shop = Shop("memory://")
    async with TestWorker(shop.app) as worker:
        eta = worker.now + timedelta(hours=2)
        job = await (shop.add.s(1, 2) >> shop.double.options(eta=eta).s()).dispatch()
        slow = shop.add.options(delay=3600).s(1, 2) >> shop.double.options(expires=10).s()
        fine = await slow.dispatch()
        lost = await (shop.add.s(1, 2) >> shop.double.options(delay=20, expires=10).s()).dispatch()
        await worker.advance(minutes=119)
        assert await fine.result(LIMIT) == 6
        with pytest.raises(JobExpired, match=r"double .*\.1 expired before it could start"):
            await lost.result(LIMIT)
        assert shop.ran == ["double 3"]
        await worker.advance(minutes=2)
        assert await job.result(LIMIT) == 6


async def test_queues_headers_retries_and_priorities_of_members() -> None:
    shop = Shop("memory://", middleware=[Marking()])
    seen: list[Message] = []

    @shop.app.task(name="look", queue="other")
    async def look(message: Message, x: int) -> int:
        seen.append(message)
        if message.attempt == 1:
            raise ValueError("again")
        return x

    async with shop.app, shop.app.worker(queues=["default", "other", "slow"]):
        policy = RetryPolicy(max_tries=2, delay=0, on=(ValueError,))
        step = look.options(queue="slow", headers={"a": "b"}, priority=3, timeout=50, retry_policy=policy).s()
        job = await (shop.add.s(1, 2) >> step).dispatch()
        assert await job.result(LIMIT) == 3
        plain = await (shop.add.s(1, 2) >> look.options(retry_policy=policy).s()).dispatch()
        assert await plain.result(LIMIT) == 3
    first, last = seen[0], seen[-1]
    assert (first.queue, first.priority, first.timeout, first.headers["a"]) == ("slow", 3, 50, "b")
    assert first.headers["marked"] == "yes"
    assert last.queue == "other"


class Marking(Middleware):
    """Passes every message that is dispatched."""

    async def dispatch(self, message: Message, call_next: Any) -> Any:
        return await call_next(msgspec.structs.replace(message, headers={**message.headers, "marked": "yes"}))


async def test_a_key_of_the_task_is_not_one_of_members() -> None:
    shop = Shop("memory://")

    @shop.app.task(name="keyed", key="only-{x}")
    async def keyed(x: int) -> int:
        return x

    async with shop.app, shop.app.worker():
        job = await group(keyed.s(1), keyed.s(1), keyed.s(1)).dispatch()
        assert await job.result(LIMIT) == [1, 1, 1]


# Recording: whole or not at all


async def nothing_is_left(shop: Shop) -> None:
    stores = await shop.app.composer._host().stores()  # type: ignore[attr-defined]
    assert not await (await stores.workflows()).list()
    assert not await stores.broker.queues.counts()


async def test_an_iterable_that_raises_has_dispatched_nothing(url: str) -> None:
    shop = Shop(url)

    def some() -> Iterator[Any]:
        for number in range(3000):
            yield shop.add.s(number, number)
        raise RuntimeError("the file ended early")

    async with shop.app:
        with pytest.raises(RuntimeError, match="the file ended early"):
            await group(some()).dispatch()
        await nothing_is_left(shop)


async def test_a_message_that_is_too_large_has_dispatched_nothing() -> None:
    shop = Shop("memory://", settings=AppSettings(max_message_size=2000))
    async with shop.app:
        with pytest.raises(MessageTooLarge, match="notify: the message has"):
            await (shop.add.s(1, 2) >> shop.notify.si("x" * 3000)).dispatch()
        await nothing_is_left(shop)


async def test_under_one_id_a_workflow_is_dispatched_once(url: str) -> None:
    shop = Shop(url)
    async with shop.app, shop.app.worker():
        first = await group(shop.double.s(1), shop.double.s(2)).options(job_id="nightly").dispatch()
        second = await group(shop.double.s(1), shop.double.s(2)).options(job_id="nightly").dispatch()
        assert first.id == second.id == "nightly"
        assert await first.result(LIMIT) == await second.result(LIMIT) == [2, 4]
        assert len(shop.ran) == 2
        followed = shop.double.options(job_id="single").s(5)
        followed.on_success = shop.notify.si("done")
        job = await followed.dispatch()
        assert (job.id, await job.result(LIMIT)) == ("single", 10)
        with pytest.raises(DispatchError, match="has no spaces in it"):
            await chain(shop.double.s(1)).options(job_id="a b").dispatch()


async def test_who_was_cut_off_while_recording_can_dispatch_again_under_the_same_id() -> None:
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        stores = await shop.app.composer._host().stores()  # type: ignore[attr-defined]
        store = await stores.workflows()
        assert await store.create(WorkflowRecord(id="again", name="half"))  # and then that process died
        job = await group(shop.double.s(1), shop.double.s(2)).options(job_id="again").dispatch()
        assert await job.result(LIMIT) == [2, 4]


async def test_a_group_of_any_size_needs_little_memory_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("camora_workflows.recording._AT_HAND", 2_000_000)
    shop = Shop(f"sqlite:///{tmp_path}/camora.db")
    async with shop.app:
        await group(shop.notify.s("x") for _ in range(10)).dispatch()  # whatever is made once is made now
        tracemalloc.start()
        try:
            job = await group(shop.notify.s("x" * 4000) for _ in range(6_000)).dispatch()
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 15_000_000  # the messages have 25 MB
        record = await stored(shop, job.id)
        assert (record.nodes, record.open, record.passed) == (6_001, 6_001, {-1: 6_000})


async def test_what_is_more_than_fits_at_hand_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("camora_workflows.recording._AT_HAND", 50_000)
    shop = Shop(f"sqlite:///{tmp_path}/camora.db")
    async with shop.app, shop.app.worker():
        job = await (group(shop.double.s(i) for i in range(700)) >> shop.total.s()).dispatch()
        assert await job.result(LIMIT) == 700 * 699
        assert len(shop.ran) == 701


# The handle


async def test_a_workflow_is_found_again_by_its_id(url: str) -> None:
    shop = Shop(url)
    async with shop.app, shop.app.worker():
        job = await group(shop.add.s(1, 2), shop.wait.s(4)).dispatch()
        again = workflow(shop.app, job.id)
        await come(lambda: shop.held.is_set())
        assert await again.status() is Status.RUNNING
        with pytest.raises(ResultTimeout, match=r"not finished after 0\.01 s; it goes on"):
            await again.result(0.01)
        assert [member.status async for member in again.members(live=True)][1] == "running"
        assert not await again.forget()
        shop.hold.set()
        assert await again.result(LIMIT) == [3, 4]
        await come(lambda: finished(shop, job.id))
        assert await again.forget()
        with pytest.raises(ResultExpired, match="nothing is known of workflow"):
            await again.result(LIMIT)
        with pytest.raises(ResultExpired, match="nothing is known of workflow"):
            await again.retry()
        assert await again.cancel() is CancelResult.UNKNOWN


async def test_cancelling_stops_what_runs_and_what_has_not_begun(url: str) -> None:
    shop = Shop(url)
    async with shop.app, shop.app.worker():
        what = chain(shop.add.s(1, 2), group(shop.wait.s(), shop.wait.s()), shop.total.s(), on_failure=shop.alert.s())
        job = workflow(shop.app, (await what.dispatch()).id)
        await come(lambda: shop.ran.count("wait 3") == 2)
        assert await job.cancel() is CancelResult.SIGNALLED
        with pytest.raises(JobCancelled, match="was cancelled"):
            await job.result(LIMIT)
        assert await job.status() is Status.CANCELLED
        statuses = await over(job)
        assert sorted(set(statuses.values())) in (["cancelled", "skipped", "succeeded"], ["cancelled", "succeeded"])
        await come(lambda: ended(shop, job.id))
        assert await job.cancel() is CancelResult.FINISHED
        assert shop.ran == ["wait 3", "wait 3"]


async def ended(shop: Shop, workflow_id: str) -> bool:
    record = await stored(shop, workflow_id)
    return record is None or record.state == "finished"


async def test_cancelling_what_only_waits_removes_it() -> None:
    shop = Shop("memory://")
    async with shop.app:
        job = workflow(shop.app, (await (group(shop.add.s(1, 2), shop.add.s(3, 4)) >> shop.total.s()).dispatch()).id)
        assert await job.cancel() is CancelResult.REMOVED
        with pytest.raises(JobCancelled):
            await job.result(LIMIT)
        counts = await shop.app.composer._host().stores()  # type: ignore[attr-defined]
        assert not any(sum(states.values()) for states in (await counts.broker.queues.counts()).values())


async def test_what_failed_is_run_again_and_nothing_else(url: str) -> None:
    shop = Shop(url)
    async with shop.app, shop.app.worker():
        what = group(shop.double.s(1), shop.fail.s(5), shop.fail.s(6)) >> shop.total.s() >> shop.double.s()
        job = workflow(shop.app, (await what.dispatch()).id)
        with pytest.raises(JobFailed):
            await job.result(LIMIT)
        await over(job)
        await come(lambda: ended(shop, job.id))
        shop.ran.clear()
        shop.failing = False
        await come(lambda: has_letters(shop, 2))  # what a job came to is known before its message is settled
        assert await job.retry() == 2
        assert await has_letters(shop, 0)
        assert await job.result(LIMIT) == 26
        assert sorted(shop.ran) == ["double 13", "fail 5", "fail 6", "total of 3"]
        runs = {member.task: member.run async for member in job.members()}
        assert runs == {"total": 1, "double": 0, "fail": 1}
        assert await job.retry() == 0


async def has_letters(shop: Shop, count: int) -> bool:
    return len([letter async for letter in shop.app.dead_letters()]) == count


async def test_a_cancelled_workflow_can_be_gone_on_with() -> None:
    shop = Shop("memory://")
    async with shop.app, shop.app.worker():
        job = workflow(shop.app, (await (shop.wait.s(1) >> shop.double.s()).dispatch()).id)
        await come(lambda: shop.held.is_set())
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(LIMIT)
        await come(lambda: ended(shop, job.id))
        shop.hold.set()
        assert await job.retry() == 2
        assert await job.result(LIMIT) == 2


def test_from_code_without_a_loop() -> None:
    shop = Shop("memory://")
    shop.hold.set()
    job = (shop.add.s(1, 2) >> shop.double.s()).dispatch_sync()

    async def work() -> None:
        async with shop.app, shop.app.worker():
            await come(lambda: shop.ran)
            assert await asyncio.to_thread(job.result_sync, LIMIT) == 6

    asyncio.run(work())
    shop.app.close_sync()
