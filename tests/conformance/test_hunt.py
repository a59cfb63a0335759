"""The hunt can fail: on broken brokers it finds the fault, and with the same examples nothing on a sound one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from camora.builtin.memory import MemoryBroker, MemoryStore
from camora.clock import Clock
from camora.testing.clock import VirtualClock
from camora.testing.conformance import Subject, hunt
from hypothesis import Phase

from tests.conformance.broken import BROKEN, Broken, Lazy

PATIENCE = 0.01
"""With any at all, a subject is hunted as a server is: it may hand out less than it has."""

exactly_or_not = pytest.mark.parametrize("patience", [0.0, PATIENCE], ids=["exact", "patient"])


def sound(clock: Clock) -> MemoryBroker:
    return MemoryBroker(MemoryStore(clock))


def track(make: Callable[..., MemoryBroker], *, patience: float = 0.0, examples: int = 600) -> None:
    """Hunt it with the same examples each time: whether a fault can be seen must not be a matter of luck."""

    def subject() -> Subject:
        clock = VirtualClock()
        return Subject(broker=make(clock=clock), clock=clock, pass_time=clock.advance, lease=10.0, patience=patience)

    hunt(subject, examples=examples, derandomize=True, phases=(Phase.generate,), report_multiple_bugs=False)


@exactly_or_not
def test_the_hunt_finds_nothing_in_a_sound_broker(patience: float) -> None:
    # Among them are examples that expose the broken ones.
    track(sound, patience=patience, examples=100 if patience else 300)


@exactly_or_not
@pytest.mark.parametrize("kind", BROKEN.values(), ids=list(BROKEN))
def test_the_hunt_finds(kind: type[Broken], patience: float) -> None:
    with pytest.raises(AssertionError):
        track(kind, patience=patience)


def test_a_lazy_server_is_sound_and_a_lazy_broker_in_this_process_is_not() -> None:
    track(Lazy, patience=PATIENCE, examples=100)
    with pytest.raises(AssertionError):
        track(Lazy)
