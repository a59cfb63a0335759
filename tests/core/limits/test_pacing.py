"""Those who were refused come again one by one, and not too often."""

from __future__ import annotations

from camora.limits import Limit
from camora.testing.clock import VirtualClock
from camora.worker.pacing import Pacing

RATE = Limit(name="rate:a", most=10, per=1.0)
SLOT = Limit(name="slots:a", most=1)


def test_a_rates_waiters_come_at_its_pace() -> None:
    pacing = Pacing(VirtualClock())
    delays = [round(pacing.delay([RATE], 0.5), 6) for _ in range(5)]
    assert [round(delay, 1) for delay in delays] == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert delays[4] > 0.9  # places come free a little late


def test_a_slots_waiters_come_at_the_pace_of_the_jobs_that_hold_it() -> None:
    clock = VirtualClock()
    pacing = Pacing(clock)
    pacing.delay([SLOT], 0.0)
    for _ in range(30):
        clock.advance(2.0)
        pacing.granted([SLOT])
    first, second = pacing.delay([SLOT], 0.0), pacing.delay([SLOT], 0.0)
    assert 1.9 < second - first < 2.1


def test_a_thousand_waiters_come_within_a_bound_and_not_all_at_once() -> None:
    clock = VirtualClock()
    pacing = Pacing(clock)
    pacing.delay([SLOT], 0.0)
    for _ in range(30):
        clock.advance(5.0)
        pacing.granted([SLOT])
    delays = [pacing.delay([SLOT], 0.0) for _ in range(1000)]
    assert max(delays) <= 15.0
    assert sum(delays) / len(delays) > 10.0


def test_the_longer_nobody_gets_anything_the_rarer_they_come() -> None:
    clock = VirtualClock()
    pacing = Pacing(clock)
    steps = []
    for _ in range(4):
        first, second = pacing.delay([SLOT], 0.0), pacing.delay([SLOT], 0.0)
        steps.append(second - first)
        clock.advance(30.0)
    assert steps == sorted(steps)
    assert steps[0] < 0.1
    assert steps[-1] > 5.0


def test_names_that_came_and_went_are_forgotten() -> None:
    clock = VirtualClock()
    pacing = Pacing(clock)
    for number in range(5000):
        pacing.delay([Limit(name=f"slots:a:{number}", most=1)], 0.0)
        clock.advance(1.0)
    assert len(pacing._next) <= 1001
    assert len(pacing._steps) <= 1001
