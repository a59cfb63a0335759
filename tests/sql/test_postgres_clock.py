"""The clock of a server, as it is told from here: whatever this machine's own says."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from camora.testing.clock import VirtualClock
from camora_sql import timing
from camora_sql.broker import SqlBroker
from camora_sql.timing import ServerClock

from tests.servers.fixtures import fresh_postgres_url

HOUR = 3_600_000


class Steady:
    """This machine's steady clock, moved by hand. In milliseconds."""

    def __init__(self) -> None:
        self.ms = 5_000.0

    def __call__(self) -> float:
        return self.ms


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Steady:
    made = Steady()
    monkeypatch.setattr(timing, "_local_ms", made)
    return made


def ask(
    clock: ServerClock, steady: Steady, server: Callable[[], float], *, there: float = 1.0, back: float = 1.0
) -> None:
    """Ask the server, with so many milliseconds on the way there and back."""
    sent = clock.local_ms()
    steady.ms += there
    said = server()
    steady.ms += back
    clock.learn(said, sent, clock.local_ms())


def test_it_goes_by_the_server_and_not_by_this_machine(steady: Steady, monkeypatch: pytest.MonkeyPatch) -> None:
    from camora.clock import SYSTEM_CLOCK

    monkeypatch.setattr(time, "time", lambda: 0.0)
    clock = ServerClock(SYSTEM_CLOCK)
    ask(clock, steady, lambda: steady.ms + HOUR)
    assert abs(clock.now_ms() - (steady.ms + HOUR)) <= 1
    monkeypatch.setattr(time, "time", lambda: 9e9)
    steady.ms += 10_000
    assert abs(clock.now_ms() - (steady.ms + HOUR)) <= 1


def test_a_slow_answer_does_not_spoil_what_a_quick_one_said(steady: Steady) -> None:
    from camora.clock import SYSTEM_CLOCK

    clock = ServerClock(SYSTEM_CLOCK)
    ask(clock, steady, lambda: steady.ms + HOUR)
    # Half a second on the way back: by this answer, the server's clock may show as much more by now.
    ask(clock, steady, lambda: steady.ms + HOUR, there=1, back=500)
    assert abs(clock.now_ms() - (steady.ms + HOUR)) <= 1
    # But a first answer is believed, however slow, until there is a better one.
    other = ServerClock(SYSTEM_CLOCK)
    ask(other, steady, lambda: steady.ms + HOUR, there=1, back=501)
    assert 500 <= steady.ms + HOUR - other.now_ms() <= 502
    ask(other, steady, lambda: steady.ms + HOUR)
    assert abs(other.now_ms() - (steady.ms + HOUR)) <= 1


@pytest.mark.parametrize(("there", "back"), [(0, 0), (1, 500), (500, 1), (250, 250)])
def test_it_is_never_ahead_of_the_server(steady: Steady, there: float, back: float) -> None:
    from camora.clock import SYSTEM_CLOCK

    clock = ServerClock(SYSTEM_CLOCK)
    ask(clock, steady, lambda: steady.ms + HOUR, there=there, back=back)
    assert steady.ms + HOUR - back - 1 <= clock.now_ms() <= steady.ms + HOUR


@pytest.mark.parametrize("by", [-HOUR, -500, 500, HOUR])
def test_a_server_whose_clock_is_set_is_followed(steady: Steady, by: float) -> None:
    from camora.clock import SYSTEM_CLOCK

    clock = ServerClock(SYSTEM_CLOCK)
    ask(clock, steady, lambda: steady.ms)
    ask(clock, steady, lambda: steady.ms + by, there=2, back=2)
    assert abs(clock.now_ms() - (steady.ms + by)) <= 2


def test_clocks_that_drift_apart_are_brought_together(steady: Steady) -> None:
    from camora.clock import SYSTEM_CLOCK

    clock = ServerClock(SYSTEM_CLOCK)
    begin = steady.ms
    drifting = lambda: steady.ms + (steady.ms - begin) * 0.0001  # noqa: E731
    for _ in range(1000):
        ask(clock, steady, drifting, there=1, back=3)
        steady.ms += 5_000
        # 3 ms of the way back, 0.5 ms of drift since, and one of cutting.
        assert abs(clock.now_ms() - drifting()) < 5


def test_a_clock_that_was_given_takes_the_server_s_place(steady: Steady) -> None:
    given = VirtualClock()
    clock = ServerClock(given)
    ask(clock, steady, lambda: steady.ms + HOUR)
    assert clock.now_ms() == given.now_ms()
    given.advance(3.0)
    assert clock.now_ms() == given.now_ms()


@pytest.mark.parametrize("driver", ["", "psycopg"], ids=["asyncpg", "psycopg"])
async def test_each_connection_asks_the_server(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = fresh_postgres_url(driver=driver)
    real = time.time
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: real() - 7200)
        broker = SqlBroker(url)
    store = broker.database
    assert abs(store.now() - (real() - 7200) * 1000) < 1000
    await broker.open()
    assert abs(store.now() - real() * 1000) < 1000
    assert abs(store.lease_now() - real() * 1000) < 1000
    await broker.close()
