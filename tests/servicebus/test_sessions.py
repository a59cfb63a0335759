"""Sessions: the jobs of one run one after the other, whatever fails; those of others beside them."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from camora import AppSettings, Camora, Context, Retry, RetryPolicy
from camora.errors import DispatchError, UnsupportedCapability
from camora_servicebus import ServiceBusQueue
from camora_servicebus.session_record import Kept, Record, packed, unpacked
from camora_servicebus.user_state import SessionState, session_state

from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.shared import url_of
from tests.servicebus.sending import new_name, until


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(lock_seconds=5.0) as server:
        yield server


def sessions(server: ServiceBusServer, **options: Any) -> str:
    return server.create_queue(new_name(), requires_session=True, **options)


def app_of(server: ServiceBusServer, queue: str, **options: Any) -> Any:
    given = {"queues": [ServiceBusQueue(queue, sessions=True)], "dependencies": [session_state], **options}
    return Camora(url_of(server, timeout=5.0), results=False, settings=AppSettings(dispatch_timeout=20), **given)


class Ran:
    """What ran, by session, and how many at once."""

    def __init__(self) -> None:
        self.order: dict[str, list[Any]] = defaultdict(list)
        self.running: dict[str, int] = defaultdict(int)
        self.together = 0
        self.most_of_one = 0

    @contextlib.contextmanager
    def one(self, session: str, what: Any) -> Iterator[None]:
        self.order[session].append(what)
        self.running[session] += 1
        self.most_of_one = max(self.most_of_one, self.running[session])
        self.together = max(self.together, sum(1 for count in self.running.values() if count))
        try:
            yield
        finally:
            self.running[session] -= 1

    @property
    def count(self) -> int:
        return sum(map(len, self.order.values()))


async def test_jobs_of_one_session_run_in_order_and_those_of_others_beside_them(server: ServiceBusServer) -> None:
    queue, ran = sessions(server), Ran()
    app = app_of(server, queue)
    together = asyncio.Event()

    @app.task(name="note", queue=queue)
    async def note(session: str, number: int) -> None:
        with ran.one(session, number):
            if ran.together == 5:
                together.set()
            await together.wait()  # until five sessions run at once

    async with app:
        for number in range(10):
            for one in range(5):
                await note.options(session=f"s{one}").dispatch(f"s{one}", number)
        async with app.worker(queues=[queue], concurrency=8):
            await until(lambda: ran.count == 50, "all ran")
    assert ran.order == {f"s{one}": list(range(10)) for one in range(5)}
    assert ran.most_of_one == 1
    assert server.counts(queue)["active"] == 0


@pytest.mark.parametrize("delay", [0, 0.5])
async def test_a_retry_is_not_passed_by_what_follows(server: ServiceBusServer, delay: float) -> None:
    queue, ran = sessions(server), Ran()
    app = app_of(server, queue, retry_policy=RetryPolicy(max_tries=4, delay=delay, jitter=False))

    @app.task(name="note", queue=queue)
    async def note(session: str, number: int, *, ctx: Context) -> None:
        with ran.one(session, (number, ctx.attempt)):
            if number % 2 and ctx.attempt < 3:
                raise ConnectionError("again")

    async with app:
        for number in range(4):
            await note.options(session="a").dispatch("a", number)
            await note.options(session="b").dispatch("b", number)
        async with app.worker(queues=[queue], concurrency=4):
            await until(lambda: ran.count == 16, "all ran")
            await until(lambda: server.counts(queue)["active"] == 0, "all ended")
    expected = [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (3, 2), (3, 3)]
    assert ran.order == {"a": expected, "b": expected}
    assert ran.most_of_one == 1
    assert len(server.events("completed", entity=queue)) == 8
    assert server.counts(queue)["dead"] == 0


async def test_what_fails_for_good_is_a_letter_and_lets_the_others_go_on(server: ServiceBusServer) -> None:
    queue, ran = sessions(server), Ran()
    app = app_of(server, queue, retry_policy=RetryPolicy(max_tries=2, delay=0))
    broken = True

    @app.task(name="note", queue=queue)
    async def note(number: int, *, ctx: Context) -> None:
        with ran.one("a", (number, ctx.attempt)):
            if number == 0 and broken:
                raise ConnectionError("always")

    async with app, app.worker(queues=[queue]):
        for number in range(2):
            await note.options(session="a").dispatch(number)
        await until(lambda: ran.count == 3, "both ran")
        [letter] = [one async for one in app.dead_letters()]
        assert (letter.reason, letter.attempts) == ("failed", 2)
        broken = False
        assert await app.requeue(letter.id)
        await until(lambda: ran.count == 4, "it ran again")
    assert ran.order["a"] == [(0, 1), (0, 2), (1, 1), (0, 1)]


async def test_few_slots_serve_many_sessions(server: ServiceBusServer) -> None:
    """Sessions with nothing to do give way at once to others."""
    queue, ran = sessions(server), Ran()
    app = app_of(server, queue)

    @app.task(name="note", queue=queue)
    async def note(session: str, number: int) -> None:
        with ran.one(session, number):
            await asyncio.sleep(0)

    async with app:
        for number in range(2):
            for one in range(20):
                await note.options(session=f"s{one}").dispatch(f"s{one}", number)
        async with app.worker(queues=[queue], concurrency=2):
            await until(lambda: ran.count == 40, "all ran")
    assert ran.order == {f"s{one}": [0, 1] for one in range(20)}
    assert ran.together <= 2


async def test_what_a_worker_leaves_behind_is_at_once_for_others_and_not_counted(server: ServiceBusServer) -> None:
    queue, ran = sessions(server, lock_duration=60.0), Ran()
    app, other = app_of(server, queue), app_of(server, queue)

    async def note(number: int, *, ctx: Context) -> None:
        with ran.one("a", (number, ctx.delivery.deliveries)):
            if number == 0 and ctx.attempt == 1:
                raise Retry(delay=1.0)

    [task, _] = [one.task(name="note", queue=queue)(note) for one in (app, other)]
    async with app, other:
        for number in range(2):
            await task.options(session="a").dispatch(number)
        async with app.worker(queues=[queue]):
            await until(lambda: ran.count == 1, "the first try")
        async with other.worker(queues=[queue]):
            await until(lambda: ran.count == 3, "the others")
    assert ran.order["a"] == [(0, 1), (0, 1), (1, 1)]


async def test_a_lost_connection_costs_the_session_and_nothing_of_it(server: ServiceBusServer) -> None:
    queue, ran = sessions(server, lock_duration=60.0), Ran()
    app = app_of(server, queue)
    go = asyncio.Event()

    @app.task(name="note", queue=queue)
    async def note(number: int) -> None:
        with ran.one("a", number):
            if number == 1:
                await go.wait()

    async with app, app.worker(queues=[queue]):
        for number in range(4):
            await note.options(session="a").dispatch(number)
        await until(lambda: ran.count == 2, "the second one runs")
        server.cut(queue)
        # Nobody can know that the first attempt goes on: it is told, and the job begins anew.
        await until(lambda: ran.order["a"].count(1) == 2, "it runs again")
        go.set()
        await until(lambda: server.counts(queue)["active"] == 0, "all ended")
    assert ran.order["a"] == [0, 1, 1, 2, 3]


async def test_jobs_longer_than_a_lock_keep_it(server: ServiceBusServer) -> None:
    queue, ran = sessions(server, lock_duration=2.0), Ran()
    app = app_of(server, queue)

    @app.task(name="note", queue=queue)
    async def note(number: int) -> None:
        with ran.one("a", number):
            renewed = len(server.events("session_renewed", entity=queue))
            await until(lambda: len(server.events("session_renewed", entity=queue)) >= renewed + 4, "renewals")

    async with app, app.worker(queues=[queue]):
        for number in range(2):
            await note.options(session="a").dispatch(number)
        await until(lambda: server.counts(queue)["active"] == 0 and ran.count == 2, "all ended")
    assert ran.order["a"] == [0, 1]
    assert len(server.events("session_accepted", entity=queue)) >= 1


async def test_jobs_keep_a_state_of_their_session(server: ServiceBusServer) -> None:
    queue, ran = sessions(server), Ran()
    app = app_of(server, queue, retry_policy=RetryPolicy(max_tries=3, delay=0.1))

    @app.task(name="count", queue=queue)
    async def count(*, state: SessionState, ctx: Context) -> None:
        found = int(state.get() or b"0")
        with ran.one(state.session, found):
            await state.set(str(found + 1).encode())
            if ctx.attempt == 1:
                raise ConnectionError("once")

    @app.task(name="count_in_thread", queue=queue)
    def count_in_thread(*, state: SessionState) -> None:
        found = int(state.get() or b"0")
        with ran.one(state.session, found):
            state.set_sync(str(found + 1).encode() if found < 6 else None)

    async with app:
        for task in (count, count, count_in_thread, count_in_thread, count_in_thread, count_in_thread):
            for one in ("a", "b"):
                await task.options(session=one).dispatch()
        async with app.worker(queues=[queue]):
            await until(lambda: ran.count == 16, "first")
    assert ran.order == {one: [0, 1, 2, 3, 4, 5, 6, 0] for one in ("a", "b")}


async def test_a_job_without_a_session_is_refused_at_dispatch(server: ServiceBusServer) -> None:
    queue, plain = sessions(server), server.create_queue(new_name())
    app = app_of(server, queue, queues=[ServiceBusQueue(queue, sessions=True), ServiceBusQueue(plain)])

    @app.task(name="note", queue=queue)
    async def note() -> None:
        pass

    async with app:
        with pytest.raises(DispatchError, match="has sessions, and takes no job without one"):
            await note.dispatch()
        with pytest.raises(UnsupportedCapability, match="has no sessions"):
            await note.options(queue=plain, session="a").dispatch()
    assert not server.counts(queue)["active"]


def test_what_is_written_down_is_read_again() -> None:
    for own in (None, b"", b"mine", b"camora/1 mine"):
        for kept in (None, Kept(7), Kept(2**62, due=5, added=-3, body=b""), Kept(1, body=b"\n\x00" * 9)):
            for held in (False, True):
                record = Record(kept, own, held)
                assert unpacked(packed(record)) == record


@pytest.mark.parametrize("state", [b"camora/1 ", b"camora/1 []\n", b"camora/1 nonsense", b"other"])
def test_a_state_of_others_is_left_as_it_is(state: bytes) -> None:
    assert unpacked(state) == Record(own=state)
