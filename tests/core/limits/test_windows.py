"""The sliding window: never more than allowed in any window, and not much less."""

from __future__ import annotations

from camora import windows
from hypothesis import given
from hypothesis import strategies as st

rates = st.tuples(st.integers(1, 50), st.sampled_from([0.05, 0.1, 1.0, 7.5, 60.0, 3600.0]))


@given(rates, st.lists(st.integers(0, 2000), min_size=1, max_size=400))
def test_no_window_ever_holds_more_than_allowed(rate: tuple[int, float], steps: list[int]) -> None:
    most, per = rate
    window: list[tuple[int, int]] = []
    now, granted = 1_000_000, []
    for step in steps:
        now += round(step * per / 100)
        window, wait = windows.admit(window, now, most=most, per=per)
        if wait == 0:
            granted.append(now)
        assert len(window) <= 101
    for index, moment in enumerate(granted):
        inside = [other for other in granted[: index + 1] if other > moment - per * 1000]
        assert len(inside) <= most


@given(rates)
def test_waiting_as_told_is_enough_and_costs_a_hundredth_at_most(rate: tuple[int, float]) -> None:
    most, per = rate
    window: list[tuple[int, int]] = []
    now = start = 5_000_003
    for _ in range(most * 4):
        window, wait = windows.admit(window, now, most=most, per=per)
        if wait:
            now += round(wait * 1000)
            window, wait = windows.admit(window, now, most=most, per=per)
            assert wait == 0
    longest = 3 * (per * 1000 * 1.01 + 2) + 2
    assert now - start <= longest


def test_a_refusal_changes_nothing() -> None:
    window, _ = windows.admit([], 1000, most=1, per=10)
    again, wait = windows.admit(window, 1001, most=1, per=10)
    assert (again, windows.used(again, 1001, 10)) == (window, 1)
    assert 9.9 < wait <= 10.2


def test_a_clock_that_was_set_back_grants_nothing_twice() -> None:
    window, wait = windows.admit([], 100_000, most=1, per=1)
    assert wait == 0
    assert windows.admit(window, 50_000, most=1, per=1)[1] > 0
