"""The event bus: whatever observers do, and wherever events come from."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from camora.builtin.observers.memory import MemoryObserver
from camora.events import EventBus, FeedSettings
from camora.interfaces.observer import Event, JobDispatched, JobSucceeded, Observer
from camora.testing.clock import VirtualClock

LOGGER = logging.getLogger("test.bus")
QUICK = FeedSettings(pause=0.001, patience=0.05)


def event(number: int) -> JobDispatched:
    return JobDispatched(at=number, job_id=str(number))


def no_thread_is_left() -> bool:
    """A thread that has said its last word needs a moment to be gone."""
    for thread in threading.enumerate():
        if thread.name.startswith("camora-odd"):
            thread.join(10)
    return not any(thread.name.startswith("camora-odd") for thread in threading.enumerate())


def numbers(events: Sequence[Event]) -> list[int]:
    return [one.at for one in events]


class Odd(Observer):
    """Does what it is told, and keeps what it then has seen."""

    def __init__(self, act: Callable[[Sequence[Event]], Any] | None = None, name: str = "odd") -> None:
        self.act = act
        self.seen: list[Event] = []
        self.closed = 0
        self.beside = 0
        self.deepest = 0
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def observe(self, events: Sequence[Event]) -> None:
        self.beside += 1
        self.deepest = max(self.deepest, self.beside)
        try:
            if self.act is not None and (step := self.act(events)) is not None:
                await step
            self.seen.extend(events)
        finally:
            self.beside -= 1

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
async def bus_of() -> AsyncIterator[Callable[..., EventBus]]:
    made: list[EventBus] = []

    def make(*observers: Observer, settings: FeedSettings = QUICK, **more: Any) -> EventBus:
        made.append(EventBus(observers, logger=LOGGER, settings=settings, **more))
        return made[-1]

    yield make
    for bus in made:
        await bus.close()


async def test_events_arrive_in_order_and_in_batches(bus_of: Callable[..., EventBus]) -> None:
    batches: list[int] = []
    observer = Odd(lambda events: batches.append(len(events)))
    bus = bus_of(observer, settings=FeedSettings(batch=400))
    for number in range(1000):
        bus.emit(event(number))
    assert await bus.flush()
    assert numbers(observer.seen) == list(range(1000))
    assert max(batches) <= 400
    [stats] = bus.stats()
    assert (stats.name, stats.shown, stats.failures, stats.dropped, stats.waiting) == ("odd", 1000, 0, 0, 0)


async def test_without_observers_there_is_nothing() -> None:
    before = threading.active_count()
    bus = EventBus([], logger=LOGGER)
    assert not bus.active
    bus.emit(event(1))
    assert await bus.flush()
    await bus.close()
    assert bus.stats() == ()
    assert threading.active_count() == before


async def test_no_thread_before_the_first_event(bus_of: Callable[..., EventBus]) -> None:
    before = threading.active_count()
    bus = bus_of(Odd())
    assert await bus.flush()
    assert threading.active_count() == before


async def test_events_of_many_threads_and_loops_all_arrive(bus_of: Callable[..., EventBus]) -> None:
    observer = MemoryObserver()
    bus = bus_of(observer, settings=FeedSettings(pause=0.001, buffer=100_000))
    together = threading.Barrier(8)

    def in_a_loop_of_its_own(start: int) -> None:
        async def emit() -> None:
            for number in range(start, start + 500):
                bus.emit(event(number))
                if number % 50 == 0:
                    await asyncio.sleep(0)

        together.wait()
        asyncio.run(emit())

    def without_a_loop(start: int) -> None:
        together.wait()
        for number in range(start, start + 500):
            bus.emit(event(number))

    threads = [
        threading.Thread(target=(in_a_loop_of_its_own, without_a_loop)[index % 2], args=[index * 1000])
        for index in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert await bus.flush()
    seen = numbers(observer.events)
    assert sorted(seen) == sorted(base * 1000 + number for base in range(8) for number in range(500))
    for base in range(8):  # each thread's own order is kept
        own = [number for number in seen if number // 1000 == base]
        assert own == sorted(own)


def test_a_loop_that_ends_at_once_leaves_its_events_behind() -> None:
    observer = MemoryObserver()
    bus = EventBus([observer], logger=LOGGER)

    async def emit() -> None:
        bus.emit(event(1))

    asyncio.run(emit())
    observer.wait_for(lambda events: numbers(events) == [1])
    asyncio.run(bus.close())


async def test_one_observer_lives_in_one_loop_of_its_own(bus_of: Callable[..., EventBus]) -> None:
    loops: set[asyncio.AbstractEventLoop] = set()
    bus = bus_of(Odd(lambda _: loops.add(asyncio.get_running_loop())))
    bus.emit(event(1))
    await bus.flush()
    await asyncio.to_thread(asyncio.run, _emit_and_flush(bus, 2))
    assert len(loops) == 1
    assert asyncio.get_running_loop() not in loops


async def _emit_and_flush(bus: EventBus, number: int) -> None:
    bus.emit(event(number))
    await bus.flush()


def _raise(error: BaseException) -> Callable[[Sequence[Event]], Any]:
    def act(_: Sequence[Event]) -> None:
        raise error

    return act


async def _cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(60)


def _stop_loop(_: Sequence[Event]) -> None:
    asyncio.get_running_loop().stop()
    raise RuntimeError("stopped the loop")


async def _exit_beside() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    beside = asyncio.get_running_loop().create_task(leave())
    await asyncio.wait([beside])
    beside.exception()
    raise RuntimeError("a task beside it has exited")


BREAKS = {
    "an exception": _raise(ValueError("broken")),
    "an exit": _raise(SystemExit(3)),
    "an interrupt": _raise(KeyboardInterrupt()),
    "a cancellation": _raise(asyncio.CancelledError()),
    "a cancellation of every task": lambda _: _cancel_all(),
    "an exhausted generator": _raise(GeneratorExit()),
    "a stopped loop": _stop_loop,
    "an exit in a task beside it": lambda _: _exit_beside(),
    "a hang": lambda _: asyncio.Event().wait(),
    "no coroutine": lambda _: 5,
}


@pytest.mark.parametrize("way", BREAKS)
async def test_an_observer_that_breaks_loses_its_own_events_only(
    way: str, bus_of: Callable[..., EventBus], caplog: pytest.LogCaptureFixture
) -> None:
    healthy = MemoryObserver()
    odd = Odd(BREAKS[way])
    bus = bus_of(odd, healthy)
    bus.emit(event(1))
    assert await bus.flush()
    assert numbers(healthy.events) == [1]
    odd.act = None
    bus.emit(event(2))  # it gets another chance with the next batch
    assert await bus.flush()
    assert numbers(odd.seen) == [2]
    assert numbers(healthy.events) == [1, 2]
    mine, others = bus.stats()
    assert (mine.shown, mine.failures, mine.dropped) == (1, 1, 1)
    assert (others.shown, others.failures, others.dropped) == (2, 0, 0)
    assert any("odd" in record.getMessage() for record in caplog.records)
    assert odd.deepest == 1


async def test_an_observer_that_blocks_its_thread_holds_up_nobody(bus_of: Callable[..., EventBus]) -> None:
    free = threading.Event()
    healthy = MemoryObserver()
    blocked = Odd(lambda _: free.wait() and None)
    bus = bus_of(blocked, healthy)
    bus.emit(event(1))
    try:
        assert not await bus.flush()
        assert numbers(healthy.events) == [1]
        bus.emit(event(2))
        await asyncio.to_thread(healthy.wait_for, lambda events: numbers(events) == [1, 2])
    finally:
        blocked.act = None
        free.set()
    assert await bus.flush()
    assert numbers(blocked.seen)[-1] == 2


async def test_one_that_ignores_its_end_is_never_called_beside_itself(bus_of: Callable[..., EventBus]) -> None:
    free = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def ignore() -> None:
        loops.append(asyncio.get_running_loop())
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    stubborn = Odd(lambda _: ignore())
    bus = bus_of(stubborn)
    bus.emit(event(1))
    assert not await bus.flush()
    bus.emit(event(2))
    stubborn.act = None
    loops[0].call_soon_threadsafe(free.set)
    assert await bus.flush()
    assert stubborn.deepest == 1
    [stats] = bus.stats()
    assert (stats.shown, stats.failures, stats.dropped) == (1, 1, 1)


async def test_a_full_buffer_drops_the_oldest_and_says_so_once_a_minute(
    bus_of: Callable[..., EventBus], caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()
    free, inside = threading.Event(), threading.Event()

    def block(_: Sequence[Event]) -> None:
        inside.set()
        free.wait()

    slow = Odd(block, name="slow one")
    bus = bus_of(slow, settings=FeedSettings(pause=0, buffer=10), clock=clock)
    bus.emit(event(0))
    assert await asyncio.to_thread(inside.wait, 10)
    for number in range(1, 31):
        bus.emit(event(number))
    [stats] = bus.stats()
    assert (stats.dropped, stats.waiting) == (20, 10)
    assert len(caplog.records) == 1
    assert "slow one does not keep up" in caplog.records[0].getMessage()
    clock.advance(61)
    bus.emit(event(31))
    assert len(caplog.records) == 2
    assert "19 more such lines" in caplog.records[1].getMessage()
    free.set()
    assert await bus.flush()
    assert numbers(slow.seen) == [0, *range(22, 32)]


async def test_failures_are_logged_once_a_minute_with_their_cause(
    bus_of: Callable[..., EventBus], caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()
    bus = bus_of(Odd(_raise(ValueError("no such index"))), clock=clock)
    for number in range(5):
        bus.emit(event(number))
        await bus.flush()
    [record] = caplog.records
    assert "no such index" in record.getMessage()
    assert record.exc_info is not None
    clock.advance(60)
    bus.emit(event(6))
    await bus.flush()
    assert "and 4 more" in caplog.records[1].getMessage()
    assert bus.stats()[0].failures == 6


async def test_close_shows_what_is_left_and_ends_the_thread(bus_of: Callable[..., EventBus]) -> None:
    observer = Odd()
    bus = bus_of(observer, settings=FeedSettings(pause=1000))
    for number in range(5):
        bus.emit(event(number))
    await bus.close()
    assert numbers(observer.seen) == [0, 1, 2, 3, 4]
    assert observer.closed == 1
    assert no_thread_is_left()
    await bus.close()
    assert observer.closed == 1


async def test_after_its_end_it_begins_anew(bus_of: Callable[..., EventBus]) -> None:
    observer = Odd()
    bus = bus_of(observer)
    for number in range(3):
        bus.emit(event(number))
        await bus.close()
    assert numbers(observer.seen) == [0, 1, 2]
    assert observer.closed == 3


async def test_closing_from_many_sides_at_once_closes_once(bus_of: Callable[..., EventBus]) -> None:
    observer = Odd()
    bus = bus_of(observer)
    bus.emit(event(1))
    await asyncio.gather(*(bus.close() for _ in range(5)), *(asyncio.to_thread(asyncio.run, bus.close()) for _ in "ab"))
    assert observer.closed == 1


async def test_an_observer_that_was_shown_nothing_is_closed_too(bus_of: Callable[..., EventBus]) -> None:
    observer = Odd()
    await bus_of(observer).close()
    assert observer.closed == 1


async def test_closing_does_not_wait_for_ever(
    bus_of: Callable[..., EventBus], caplog: pytest.LogCaptureFixture
) -> None:
    free = threading.Event()
    hanging = Odd(lambda _: free.wait() and None)
    bus = bus_of(hanging)
    bus.emit(event(1))
    await bus.close()
    assert "could not be closed in time" in caplog.text
    free.set()
    assert await bus.flush()


async def test_an_error_while_closing_is_logged(
    bus_of: Callable[..., EventBus], caplog: pytest.LogCaptureFixture
) -> None:
    class Closing(MemoryObserver):
        async def close(self) -> None:
            raise OSError("already gone")

    bus = bus_of(Closing())
    bus.emit(event(1))
    await bus.close()
    assert "already gone" in caplog.text


async def test_whoever_is_cancelled_while_flushing_breaks_nothing(bus_of: Callable[..., EventBus]) -> None:
    free = threading.Event()
    observer = Odd(lambda _: free.wait() and None)
    bus = bus_of(observer, settings=FeedSettings(pause=0))
    bus.emit(event(1))
    flushing = asyncio.get_running_loop().create_task(bus.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    free.set()
    assert await bus.flush()
    assert numbers(observer.seen) == [1]


async def test_what_comes_while_it_closes_is_shown(bus_of: Callable[..., EventBus]) -> None:
    class Late(Odd):
        async def close(self) -> None:
            if not self.closed:
                bus.emit(event(2))
            await super().close()

    observer = Late()
    bus = bus_of(observer)
    bus.emit(event(1))
    await bus.close()
    await bus.flush()
    assert numbers(observer.seen) == [1, 2]


async def test_a_name_that_raises_breaks_nothing(bus_of: Callable[..., EventBus]) -> None:
    class Nameless(MemoryObserver):
        @property
        def name(self) -> str:
            raise LookupError("no name")

    bus = bus_of(Nameless())
    bus.emit(event(1))
    assert await bus.flush()
    assert bus.stats()[0].name == "Nameless"


def test_no_more_threads_to_be_had(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    observer = MemoryObserver()
    bus = EventBus([observer], logger=LOGGER)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        bus.emit(event(1))
        assert asyncio.run(bus.flush()) is not None
    assert "can't start new thread" in caplog.text
    bus.emit(event(2))  # once there is one again, what waited is shown
    observer.wait_for(lambda events: numbers(events) == [1, 2])
    asyncio.run(bus.close())


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_an_app_that_is_dropped_unclosed_leaves_no_thread() -> None:
    observer = Odd()
    bus = EventBus([observer], logger=LOGGER, settings=FeedSettings(pause=1000))
    bus.emit(event(1))
    del bus
    gc.collect()
    assert numbers(observer.seen) == [1]
    assert observer.closed == 1
    assert no_thread_is_left()


async def test_observers_cannot_change_an_event() -> None:
    told = JobSucceeded(at=1, job_id="a", duration=1.0)
    with pytest.raises(AttributeError):
        told.duration = 2.0  # type: ignore[misc]


PROGRAM = textwrap.dedent(
    """
    import asyncio, logging, os, sys
    from camora.events import EventBus, FeedSettings
    from camora.interfaces.observer import JobDispatched, Observer

    class Printing(Observer):
        async def observe(self, events):
            for event in events:
                os.write(1, f"{os.getpid() == parent} {event.at}\\n".encode())
        async def close(self):
            os.write(1, f"{os.getpid() == parent} closed\\n".encode())

    parent = os.getpid()
    bus = EventBus([Printing()], logger=logging.getLogger("bus"), settings=FeedSettings(pause=1000))

    async def main():
        bus.emit(JobDispatched(at=1, job_id="a"))
    asyncio.run(main())
    """
)


def _run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.split("\n")[:-1]


def test_a_program_that_ends_without_closing_shows_its_last_events() -> None:
    assert _run(PROGRAM) == ["True 1", "True closed"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_begins_anew() -> None:
    forking = PROGRAM + textwrap.dedent(
        """
        child = os.fork()
        if child == 0:
            bus.emit(JobDispatched(at=2, job_id="b"))
            asyncio.run(bus.flush())
            asyncio.run(bus.close())
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    assert _run(forking) == ["False 2", "False closed", "True 1", "True closed"]
