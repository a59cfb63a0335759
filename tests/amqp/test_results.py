"""Results by way of a reply queue: once, to the process that dispatched the job, whatever happens meanwhile."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from camora import Camora, Context, Discard, Retry, RetryPolicy, Status
from camora.errors import (
    BrokerUnavailable,
    ConfigurationError,
    JobDiscarded,
    JobExpired,
    JobFailed,
    JobTimeout,
    ResultTimeout,
    UnsupportedCapability,
)
from camora.interfaces.results import ResultBackend
from camora.outcome import JobRecord, Progress
from camora.testing.conformance import ResultBackendConformance
from camora.testing.conformance.making import job_record
from camora_amqp.broker import AmqpBroker
from camora_amqp.inbox import Inbox, Waiter
from camora_amqp.results import AmqpResultBackend

from tests.end_to_end.processes import WorkerProcess
from tests.servers.rabbitmq import RabbitServer, fresh_url, shared
from tests.servers.rabbitmq_operator import close_connections, delete_queue
from tests.servers.rabbitmq_sturdy import Sturdy, sturdy_rabbitmq

__all__ = ["sturdy_rabbitmq"]  # a fixture

PATIENCE = 60.0


class TestResultBackend(ResultBackendConformance):
    """All of it holds within one process."""

    @pytest.fixture
    def results_factory(self) -> Callable[[], ResultBackend]:
        return lambda: AmqpResultBackend(fresh_url())


@pytest.fixture
def url() -> str:
    return fresh_url()


def shop(url: str) -> Any:
    """An app with a task for each way to end. Each call makes another one, as another process would."""
    app: Any = Camora(url)

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    @app.task(name="fail", retry_policy=RetryPolicy(max_tries=1))
    async def fail(what: str) -> None:
        raise ValueError(what)

    @app.task(name="flaky", retry_policy=RetryPolicy(max_tries=3))
    async def flaky(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise Retry(delay=0.01)
        return ctx.attempt

    @app.task(name="leave")
    async def leave() -> None:
        raise Discard("nothing to do")

    @app.task(name="slow", timeout=0.05, retry_policy=RetryPolicy(max_tries=1))
    async def slow() -> None:
        await asyncio.sleep(60)

    @app.task(name="silent", keep_result=False)
    async def silent() -> int:
        return 1

    return app


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


def reply_queues(server: RabbitServer, prefix: str) -> list[str]:
    """The names of reply queues that there are, as the server says."""
    told = server.eval("[binary_to_list(N) || Q <- rabbit_amqqueue:list(), {resource, _, queue, N} <- [element(2, Q)]]")
    return [name for name in told.replace('"', "").strip("[]").split(",") if name.startswith(f"{prefix}camora.replies")]


def prefix_of(url: str) -> str:
    return url.rpartition("prefix=")[2].partition("&")[0]


# How jobs end


async def test_each_way_to_end_is_told(url: str) -> None:
    worker, app = shop(url), shop(url)
    async with app, worker, worker.worker():
        tasks = app.tasks.by_name
        assert await (await tasks["double"].dispatch(21)).result(PATIENCE) == 42
        assert await (await tasks["flaky"].dispatch()).result(PATIENCE) == 3
        failed = await tasks["fail"].dispatch("broken")
        with pytest.raises(JobFailed, match="broken") as caught:
            await failed.result(PATIENCE)
        assert "raise ValueError(what)" in caught.value.traceback, "where it went wrong, over there"
        with pytest.raises(JobDiscarded, match="nothing to do"):
            await (await tasks["leave"].dispatch()).result(PATIENCE)
        with pytest.raises(JobTimeout):
            await (await tasks["slow"].dispatch()).result(PATIENCE)
        late = await tasks["double"].options(delay=0.05, expires=0.01).dispatch(1)
        with pytest.raises(JobExpired):
            await late.result(PATIENCE)
        quiet = await tasks["silent"].dispatch()
        await wait_finished(quiet)
        assert await quiet.status() is Status.SUCCEEDED
        assert (await failed.info()).attempts == 1


async def wait_finished(job: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (await job.status()).finished:
            await asyncio.sleep(0.01)


async def test_thousands_of_results(url: str) -> None:
    worker, app = shop(url), shop(url)
    async with app, worker, worker.worker():
        double = app.tasks.by_name["double"]
        jobs = await app.dispatch_many([double.s(number) for number in range(3_000)])
        async with asyncio.timeout(PATIENCE * 2):
            assert await asyncio.gather(*(job.result() for job in jobs)) == [2 * number for number in range(3_000)]


async def test_results_that_come_before_anybody_waits(url: str) -> None:
    worker, app = shop(url), shop(url)
    async with app, worker, worker.worker():
        jobs = [await app.tasks.by_name["double"].dispatch(number) for number in range(20)]
        for job in jobs:
            await wait_finished(job)
        begin = time.monotonic()
        assert [await job.result(0) for job in jobs] == [2 * number for number in range(20)]
        assert time.monotonic() - begin < PATIENCE


def test_dispatched_in_one_loop_and_waited_for_in_others(url: str) -> None:
    worker, app = shop(url), shop(url)
    stop, ready = threading.Event(), threading.Event()

    async def work() -> None:
        async with worker, worker.worker():
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    found: list[int] = []
    try:
        assert ready.wait(PATIENCE)
        double = app.tasks.by_name["double"]
        jobs = [double.dispatch_sync(number) for number in range(3)]

        async def collect() -> list[int]:
            got = [await job.result(PATIENCE) for job in jobs]
            await app.close()
            return got

        threads = [threading.Thread(target=lambda: found.extend(asyncio.run(collect()))) for _ in range(3)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sorted(found) == sorted([0, 2, 4] * 3)

        with asyncio.Runner() as runner:
            # This loop stands still while another thread waits.
            job = runner.run(double.dispatch(7))
            assert job.result_sync(PATIENCE) == 14
            runner.run(app.close())
    finally:
        stop.set()
        thread.join()
        app.close_sync()


# What a job says of itself before its end


async def test_progress_and_status_before_the_end(url: str) -> None:
    worker, app = Camora(url), Camora(url)
    told, go_on = asyncio.Event(), asyncio.Event()

    def declare(given: Any) -> Any:
        @given.task(name="long")
        async def long(ctx: Context) -> str:
            await ctx.progress(3, 10, "on the way")
            told.set()
            await go_on.wait()
            return "there"

        return long

    declare(worker)
    task = declare(app)
    async with app, worker:
        job = await task.dispatch()
        assert await job.status() is Status.UNKNOWN, "RabbitMQ does not show what waits"
        with pytest.raises(ResultTimeout, match="which this broker does not show"):
            await job.result(0.01)
        with pytest.raises(UnsupportedCapability, match="does not show what is in a queue"):
            await job.cancel()
        async with worker.worker():
            async with asyncio.timeout(PATIENCE):
                await told.wait()
                while (await job.status()) is Status.UNKNOWN:
                    await asyncio.sleep(0.01)
            info = await job.info()
            assert (info.status, info.progress) == (Status.RUNNING, Progress(done=3, total=10, text="on the way"))
            with pytest.raises(ResultTimeout, match="is not finished after 0.01 s; it goes on"):
                await job.result(0.01)
            go_on.set()
            assert await job.result(PATIENCE) == "there"
        gc.collect()
        assert len(worker.broker.database.running) == 0, "nothing is kept of jobs that have ended"


async def test_a_job_of_another_process(url: str) -> None:
    worker, app, other = shop(url), shop(url), shop(url)
    async with app, other, worker, worker.worker():
        job = await app.tasks.by_name["double"].dispatch(1)
        assert await job.result(PATIENCE) == 2
        same = await other.job(job.id)
        assert await same.status() is Status.UNKNOWN
        with pytest.raises(ResultTimeout, match="dispatched by another process, which alone is told"):
            await same.result(0.01)


async def test_waiting_without_limit_ends_when_the_app_is_closed(url: str) -> None:
    app = shop(url)
    async with app:
        job = await app.tasks.by_name["double"].dispatch(1)
        waiting = asyncio.create_task(job.result())
        await asyncio.sleep(0)
        await until(lambda: bool(app.results._mine), "somebody waits")
    with pytest.raises(ResultTimeout, match="closing the app"):
        await waiting
    gc.collect()  # who waited has not opened it again


# Refusals


async def test_results_over_amqp_need_a_broker_at_the_same_place(url: str, tmp_path: Path) -> None:
    for broker in (f"sqlite:///{tmp_path}/camora.db", fresh_url()):
        app = Camora(broker, results=url)
        with pytest.raises(ConfigurationError, match="takes results from a broker at the same URL alone"):
            async with app:
                pass
    async with Camora(url, results=url):
        pass


async def test_no_results_at_all(url: str) -> None:
    worker = Camora(url, results=False)
    ran = asyncio.Event()

    @worker.task(name="double")
    async def double(number: int) -> None:
        ran.set()

    async with worker, worker.worker():
        await double.dispatch(1)
        async with asyncio.timeout(PATIENCE):
            await ran.wait()
    assert reply_queues(shared(), prefix_of(url)) == []


# The queue


async def test_the_queue_is_made_for_the_first_job_and_deleted_in_the_end(url: str) -> None:
    server, prefix = shared(), prefix_of(url)
    app = shop(url)
    async with app:
        assert reply_queues(server, prefix) == [], "a process that only works needs none"
        await app.tasks.by_name["double"].dispatch(1)
        assert len(reply_queues(server, prefix)) == 1
    assert reply_queues(server, prefix) == []
    assert not [one for one in threading.enumerate() if one.name == "camora-amqp-results"]


async def test_times_longer_than_the_server_can_count(url: str) -> None:
    worker, app = shop(f"{url}&result_ttl=90d"), shop(f"{url}&result_ttl=90d")
    async with app, worker, worker.worker():
        assert await (await app.tasks.by_name["double"].dispatch(1)).result(PATIENCE) == 2


async def test_a_dispatcher_that_has_ended_gets_nothing_and_nobody_is_troubled(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gone, worker, app = shop(url), shop(url), shop(url)
    async with gone:
        for number in range(50):
            await gone.tasks.by_name["double"].dispatch(number)
    caplog.set_level(logging.WARNING)
    async with app, worker:
        last = await app.tasks.by_name["double"].dispatch(100)
        async with worker.worker():
            assert await last.result(PATIENCE) == 200
            await until(lambda: not worker.broker.database.running, "all are settled")
        assert await worker.broker.queues.counts() == {}
    assert [record.getMessage() for record in caplog.records if record.name.startswith("camora")] == []


# Failures


async def restarted(server: RabbitServer) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def test_the_server_is_killed_and_connections_are_closed_between_dispatch_and_result(
    sturdy_rabbitmq: Sturdy,
) -> None:
    server, vhost = sturdy_rabbitmq, sturdy_rabbitmq.fresh_vhost()
    app, worker = shop(server.url_of(vhost)), shop(server.url_of(vhost))
    async with app:
        double = app.tasks.by_name["double"]
        first = await double.dispatch(1)
        await restarted(server)
        async with worker, worker.worker():
            assert await first.result(PATIENCE) == 2
            waiting = asyncio.create_task((await double.dispatch(2)).result(PATIENCE))
            await asyncio.to_thread(close_connections, server, "test")
            assert await waiting == 4
            # Results that were not taken over lie in the queue when the server goes down.
            [name] = await asyncio.to_thread(reply_queues, server, "")
            await asyncio.to_thread(delete_queue, server, name, vhost)
            async with asyncio.timeout(PATIENCE):
                while await asyncio.to_thread(reply_queues, server, "") == []:
                    await asyncio.sleep(0.05)
            assert await (await double.dispatch(3)).result(PATIENCE) == 6


async def test_a_server_that_is_away_when_the_first_job_is_dispatched(sturdy_rabbitmq: Sturdy) -> None:
    server = sturdy_rabbitmq
    results = AmqpResultBackend(f"{server.fresh_url()}?timeout=2")
    await results.open()
    await asyncio.to_thread(server.kill)
    with pytest.raises(BrokerUnavailable):
        await results.listening()
    await asyncio.to_thread(server.start)
    assert await results.listening() in await asyncio.to_thread(reply_queues, server, "")
    await results.close()


async def test_a_queue_that_the_server_refuses_is_replaced_by_another_one(
    sturdy_rabbitmq: Sturdy, caplog: pytest.LogCaptureFixture
) -> None:
    server, vhost = sturdy_rabbitmq, sturdy_rabbitmq.fresh_vhost()
    results = AmqpResultBackend(server.url_of(vhost))
    await results.open()
    old = await results.listening()
    name = f'rabbit_misc:r(<<"{vhost}">>, queue, <<"{old}">>)'
    # In one step, so that nobody makes it anew in between: the same name, declared otherwise.
    await asyncio.to_thread(
        server.eval,
        f"{{ok, Q}} = rabbit_amqqueue:lookup({name}), "
        "rabbit_misc:execute_mnesia_transaction(fun () -> mnesia:write(rabbit_durable_queue, "
        "setelement(6, Q, []), write), mnesia:write(rabbit_queue, setelement(6, Q, []), write) end), "
        'rabbit_networking:close_all_connections("test")',
    )
    async with asyncio.timeout(PATIENCE):
        while await results.listening() == old:
            await asyncio.sleep(0.01)
    assert "cannot be used any more" in caplog.text
    async with asyncio.timeout(PATIENCE):
        while await results.listening() not in await asyncio.to_thread(reply_queues, server, ""):
            await asyncio.sleep(0.05)
    await results.close()


@pytest.fixture
def processes() -> Iterator[list[WorkerProcess]]:
    started: list[WorkerProcess] = []
    yield started
    for process in started:
        process.destroy()


@pytest.mark.parametrize("step", ["ran", "after settle"])
async def test_a_worker_is_killed_around_its_settlement(
    url: str, tmp_path: Path, processes: list[WorkerProcess], step: str
) -> None:
    app: Any = Camora(url)

    @app.task(name="work")
    async def work(number: int) -> int:
        raise NotImplementedError

    async with app:
        job = await work.dispatch(7)
        processes.append(WorkerProcess(tmp_path, url, SHOP_CRASH=step))
        assert await asyncio.to_thread(processes[0].end) == -signal.SIGKILL
        assert (tmp_path / f"crashed-{step}").exists()
        processes.append(WorkerProcess(tmp_path, url))
        assert await job.result(PATIENCE) == 7


def test_a_forked_child_does_not_take_its_parents_results(url: str) -> None:
    store = AmqpResultBackend(url).database
    name = store.replies().name
    assert store.replies().name == name
    with mock.patch("os.getpid", return_value=os.getpid() + 1):
        assert store.replies().name != name


# Memory


def kept(inbox: Inbox, ids: list[str]) -> list[str]:
    return [job_id for job_id in ids if inbox.found(job_id) is not None]


def test_a_process_that_never_asks_does_not_grow_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox("here", ttl=3600, records=3, size=1000)
    names = [f"job-{number}" for number in range(10)]
    for name in names:
        inbox.keep(job_record(name), 10)
    assert kept(inbox, names) == names[-3:]
    inbox.keep(job_record("large"), 5000)
    assert kept(inbox, [*names, "large"]) == ["large"], "the last one is kept, however large"
    inbox.keep(job_record("small"), 1)
    assert kept(inbox, ["large", "small"]) == ["small"]
    assert caplog.text.count("the oldest are dropped") == 1


async def test_one_who_waits_is_told_however_little_is_kept() -> None:
    inbox = Inbox("here", ttl=3600, records=1, size=1)
    waiters = [Waiter(f"job-{number}") for number in range(5)]
    for waiter in waiters:
        assert inbox.enter(waiter) is None
    records: list[JobRecord] = [job_record(waiter.job_id) for waiter in waiters]
    await asyncio.to_thread(lambda: [inbox.keep(record, 100) for record in records])
    assert [await waiter.heard(PATIENCE) for waiter in waiters] == records


def test_records_go_when_their_time_is_over() -> None:
    inbox = Inbox("here", ttl=0.01)
    inbox.keep(job_record("a", ttl=3600.0), 1)
    deadline = time.monotonic() + PATIENCE
    while inbox.found("a") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_the_broker_of_another_place_does_not_settle_here(url: str) -> None:
    assert AmqpBroker(url).settles_into(AmqpResultBackend(url))
    assert not AmqpBroker(url).settles_into(AmqpResultBackend(fresh_url()))


# Dead letters


async def test_a_letter_that_is_requeued_is_answered_to_who_dispatched_it(url: str) -> None:
    worker, app, operator = shop(url), shop(url), shop(url)
    async with app, operator, worker, worker.worker():
        job = await app.tasks.by_name["fail"].dispatch("broken")
        with pytest.raises(JobFailed):
            await job.result(PATIENCE)
        first = (await job.info()).finished
        async with asyncio.timeout(PATIENCE):
            while not await app.requeue(job.id):  # the result may come sooner than the letter lies in its queue
                await asyncio.sleep(0.01)
        with pytest.raises(JobFailed):
            await job.result(PATIENCE)
        assert (await job.info()).finished > first
        assert not await operator.requeue("never-was")


async def test_all_who_look_at_the_letters_at_once_see_all(url: str) -> None:
    worker, looking = shop(url), [shop(url) for _ in range(4)]
    app = looking[0]
    async with contextlib.AsyncExitStack() as stack:
        for one in looking:
            await stack.enter_async_context(one)
        jobs = [await app.tasks.by_name["fail"].dispatch("broken") for _ in range(40)]
        async with worker, worker.worker():
            for job in jobs:
                with pytest.raises(JobFailed):
                    await job.result(PATIENCE)

        async def letters(one: Any) -> set[str]:
            return {letter.id async for letter in one.dead_letters()}

        for _ in range(3):
            found = await asyncio.gather(*(letters(one) for one in looking), letters(app))
            assert [len(ids) for ids in found] == [40] * 5
