"""Connections that fail in every way: consumption resumes by itself, closing ends at once, and nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
from camora import Camora, Context
from camora.errors import CamoraError, ResultTimeout
from camora.interfaces.broker import ConsumerSettings
from camora_amqp.broker import AmqpBroker

from tests.end_to_end.processes import WorkerProcess, until, workers
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import fresh_url, shared
from tests.servers.rabbitmq_operator import alarm, close_connections
from tests.servers.rabbitmq_sturdy import Sturdy, sturdy

PATIENCE = 40.0
OPTIONS = "timeout=2&heartbeat=1"

_names = iter(range(1_000_000))


@attrs.frozen
class Place:
    """A virtual host of the server that tests may kill, and the network to it."""

    server: Sturdy
    vhost: str
    proxy: Proxy

    def url(self, prefix: str) -> str:
        return f"{self.server.url_of(self.vhost, port=self.proxy.port)}?{OPTIONS}&prefix={prefix}"

    def fresh_url(self) -> str:
        return self.url(f"t{next(_names)}.")


@pytest.fixture(scope="module")
def server() -> Iterator[Sturdy]:
    with sturdy() as lent:
        yield lent


@pytest.fixture
def place(server: Sturdy) -> Iterator[Place]:
    with Proxy((server.host, server.port)) as proxy:
        yield Place(server, server.fresh_vhost(), proxy)


def shop(url: str, **options: Any) -> Any:
    """What dispatches to the worker's app."""
    app: Any = Camora(url, **options)

    @app.task(name="work")
    async def work(ctx: Context, number: int) -> int:
        return number

    return app


async def comes_through(app: Any, number: int) -> None:
    """A job is dispatched and its result comes, however often the server has to be asked meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                job = await app.tasks.by_name["work"].dispatch(number)
                # What was confirmed runs; its result may have gone to a connection that was cut.
                assert await job.result(timeout=20) == number
                return
            except ResultTimeout:
                continue
            except CamoraError:
                await asyncio.sleep(0.05)


# One worker, and all that can happen to its connection


@pytest.fixture(scope="module")
def site(server: Sturdy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, WorkerProcess]]:
    """A worker that goes through all of this module's stories, one after the other."""
    with Proxy((server.host, server.port)) as proxy, workers() as start:
        there = Place(server, server.fresh_vhost(), proxy)
        worker = start(tmp_path_factory.mktemp("shop"), there.url("site."))
        yield there, worker.ready()


def _restart(there: Place) -> None:
    there.server.stop()
    there.server.start()


def _kill(there: Place) -> None:
    there.server.kill()
    there.server.start()


def _pause(there: Place) -> None:
    there.server.pause()
    time.sleep(3.5)  # longer than the heartbeat allows
    there.server.resume()


def _cut(there: Place) -> None:
    there.proxy.cut()


def _network_away(there: Place) -> None:
    there.proxy.refuse()
    there.proxy.cut()
    time.sleep(1.0)
    there.proxy.heal()


def _half_open(there: Place) -> None:
    there.proxy.hold()
    time.sleep(3.5)
    there.proxy.heal()


def _answers_dropped(there: Place) -> None:
    there.proxy.drop_replies()
    time.sleep(3.5)
    there.proxy.heal()


def _closed_by_operator(there: Place) -> None:
    close_connections(there.server, "maintenance")


def _channels_closed(there: Place) -> None:
    # As the server does when a channel's process fails.
    there.server.eval("[exit(P, kill) || P <- rabbit_channel:list_local()]")


def _queue_deleted(there: Place) -> None:
    there.server.eval(
        'lists:foreach(fun(Q) -> rabbit_amqqueue:delete(Q, false, false, <<"test">>) end, '
        '[Q || Q <- rabbit_amqqueue:list(), {resource, _, queue, <<"site.default">>} <- [amqqueue:get_name(Q)]])'
    )


def _application_restarted(there: Place) -> None:
    there.server.eval("rabbit:stop(), rabbit:start()")
    there.server.wait_ready()


STORIES: dict[str, Callable[[Place], None]] = {
    "cut": _cut,
    "operator": _closed_by_operator,
    "channels": _channels_closed,
    "queue deleted": _queue_deleted,
    "network away": _network_away,
    "half open": _half_open,
    "answers dropped": _answers_dropped,
    "paused": _pause,
    "application restarted": _application_restarted,
    "restarted": _restart,
    "killed": _kill,
}


@pytest.mark.parametrize("what", list(STORIES))
async def test_consumption_resumes_by_itself(site: tuple[Place, WorkerProcess], what: str) -> None:
    there, worker = site
    async with shop(there.url("site.")) as app:
        await comes_through(app, 1)
        before = len(worker.lines)
        await asyncio.to_thread(STORIES[what], there)
        for number in range(2, 5):
            await comes_through(app, number)
    said = "\n".join(worker.lines[before:])
    assert "Traceback" not in said and worker.process.poll() is None, said
    assert len(worker.lines) - before < 40, said  # it says what is the matter, and not in every attempt
    # As many connections as before: one to take jobs, one to publish; what dispatched has ended.
    await asyncio.to_thread(until, lambda: 1 <= there.proxy.connections <= 3, "the end of the others")


async def test_blocked_by_an_alarm(site: tuple[Place, WorkerProcess]) -> None:
    there, worker = site
    async with shop(there.url("site.")) as app:
        await comes_through(app, 1)
        with alarm(there.server):
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        await app.tasks.by_name["work"].dispatch(2)
                    except CamoraError as error:
                        if "takes no messages" in str(error):
                            break
        await comes_through(app, 3)
    assert "Traceback" not in worker.text() and worker.process.poll() is None


async def test_the_server_is_away_when_both_begin(place: Place, tmp_path: Path) -> None:
    url = place.fresh_url()
    place.proxy.refuse()
    with workers() as start:
        worker = start(tmp_path, url)
        with pytest.raises(CamoraError, match="nothing listens there"):
            async with shop(url):
                pass
        worker.wait_for("nothing listens there")
        place.proxy.heal()
        async with shop(url) as app:
            await comes_through(app, 1)
        assert "Traceback" not in worker.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_worker_whose_server_is_frozen_ends(place: Place, tmp_path: Path, number: signal.Signals, busy: bool) -> None:
    url = place.fresh_url()
    with workers() as start:
        worker = start(tmp_path, url, CAMORA_WORKER__SHUTDOWN_TIMEOUT="1").ready()
        if busy:

            async def dispatch() -> None:
                async with Camora(url) as app:

                    @app.task(name="hold")
                    async def hold(name: str) -> None: ...

                    await hold.dispatch("it")

            asyncio.run(dispatch())
            until(lambda: list(tmp_path.glob("started-it-*")), "its job")
        place.proxy.hold()
        began = time.monotonic()
        worker.signal(number)
        worker.end(60)
        assert time.monotonic() - began < 30
        assert "Traceback" not in worker.text()


# Closing


@contextlib.asynccontextmanager
async def nothing_left(proxy: Proxy) -> AsyncIterator[None]:
    """All threads and tasks that begin here end here, and so do all connections."""
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()
    yield
    async with asyncio.timeout(20):
        while asyncio.all_tasks() - tasks or [
            one for one in threading.enumerate() if _ours(one) and one not in threads
        ]:
            await asyncio.sleep(0.02)
    proxy.heal()
    await asyncio.to_thread(until, lambda: not proxy.connections, "the end of all connections")
    gc.collect()


def _ours(thread: threading.Thread) -> bool:
    return thread.name.startswith("camora")


def _hold(there: Place) -> None:
    there.proxy.hold()


def _drop(there: Place) -> None:
    there.proxy.drop_replies()


def _away(there: Place) -> None:
    there.proxy.refuse()
    there.proxy.cut()


STATES: dict[str, Callable[[Place], None]] = {
    "fine": lambda there: None,
    "just cut": _cut,
    "away": _away,
    "half open": _hold,
    "answers dropped": _drop,
}


@pytest.mark.parametrize("state", list(STATES))
@pytest.mark.parametrize("after", [0.0, 2.5], ids=["at once", "after a while"])
async def test_closing_ends_at_once_and_leaves_nothing(place: Place, state: str, after: float) -> None:
    async with nothing_left(place.proxy):
        broker = AmqpBroker(place.fresh_url())
        await broker.open()
        consumer = await broker.consumer(ConsumerSettings(queues=("default",), worker="w", lease=2.0))
        assert await consumer.receive(1, 0.2) == []
        STATES[state](place)
        await asyncio.sleep(after)  # so that it is in the middle of noticing, or of connecting again
        began = time.monotonic()
        await consumer.close()
        await broker.close()
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("state", ["away", "half open"])
async def test_closing_while_it_connects(place: Place, state: str) -> None:
    async with nothing_left(place.proxy):
        broker = AmqpBroker(place.fresh_url().replace("timeout=2", "timeout=60"))
        await broker.open()
        STATES[state](place)
        consumer = await broker.consumer(ConsumerSettings(queues=("default",), worker="w", lease=2.0))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await consumer.close()
        await broker.close()
        assert time.monotonic() - began < 15


# Life


async def test_a_broker_that_is_opened_and_closed_often_leaves_nothing() -> None:
    url, process = fresh_url(), psutil.Process()
    threads = threading.active_count()
    for number in range(40):
        broker = AmqpBroker(url)
        await broker.open()
        consumer = await broker.consumer(ConsumerSettings(queues=("default",), worker="w"))
        await consumer.receive(1, 0)
        await consumer.close()
        await broker.close()
        if number == 10:
            gc.collect()
            sockets, objects = process.num_fds(), len(gc.get_objects())
    await asyncio.sleep(0.1)
    gc.collect()
    assert process.num_fds() <= sockets
    assert len(gc.get_objects()) < objects + 3000
    assert threading.active_count() <= threads + 1  # the loop's own, of `to_thread`
    assert len(asyncio.all_tasks()) == 1


def test_two_loops_share_an_app() -> None:
    app = shop(fresh_url())

    async def main(number: int) -> str:
        job = await app.tasks.by_name["work"].dispatch(number)
        return str(job.id)

    # The second loop lets go of what the first one, which is gone, had open.
    assert len({asyncio.run(main(number)) for number in range(3)}) == 3

    async def finish() -> None:
        async with app, app.worker():
            await comes_through(app, 7)

    asyncio.run(finish())
    gc.collect()


def test_dispatching_from_threads() -> None:
    app = shop(fresh_url())
    work = app.tasks.by_name["work"]
    with ThreadPoolExecutor(8) as threads:
        jobs = list(threads.map(work.dispatch_sync, range(200)))
    assert len({job.id for job in jobs}) == 200

    async def finish() -> None:
        async with app, app.worker():
            for number, job in enumerate(jobs):
                assert await asyncio.to_thread(job.result_sync, timeout=60) == number

    asyncio.run(finish())
    app.close_sync()
    gc.collect()


async def _worked(app: Any, job: Any) -> Any:
    async with app, app.worker():
        return await asyncio.to_thread(job.result_sync, timeout=60)


def test_a_forked_child_takes_nothing_of_its_parents() -> None:
    app = shop(fresh_url())
    work = app.tasks.by_name["work"]
    work.dispatch_sync(1)
    if not (child := os.fork()):
        code = 1
        try:
            work.dispatch_sync(2)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    # The parent's connection goes on.
    job = work.dispatch_sync(3)
    assert asyncio.run(_worked(app, job)) == 3
    app.close_sync()
    gc.collect()


def test_abandoned_in_the_middle_of_everything() -> None:
    server = shared()
    url = f"{fresh_url()}&name=abandoned-broker"

    def connections() -> int:
        told = server.eval(
            "[proplists:get_value(client_properties, P) || P <- rabbit_networking:connection_info_all()]"
        )
        return told.count("abandoned-broker")

    loop = asyncio.new_event_loop()
    broker = AmqpBroker(url)
    loop.run_until_complete(broker.open())
    assert connections() == 1
    loop.close()
    with ThreadPoolExecutor() as threads:
        for _ in range(2):
            threads.submit(broker.abandon).result()
    until(lambda: connections() == 0, "the end of all connections")
    del broker
    gc.collect()
