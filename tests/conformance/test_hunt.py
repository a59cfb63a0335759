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

BY_ANSWERS = {
    "finished ids are forgotten at once", "keys are ignored", "key_ttl is ignored", "keys are never freed",
    "purging takes what runs", "rescheduling takes what runs",
}  # fmt: skip
"""Faults that answers and counts show. Patience is about what is handed out, and makes no difference to them."""

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
    track(sound, patience=patience, examples=50 if patience else 150)


@pytest.mark.parametrize("kind", BROKEN.values(), ids=list(BROKEN))
def test_the_hunt_finds(kind: type[Broken]) -> None:
    with pytest.raises(AssertionError):
        track(kind)


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - BY_ANSWERS))
def test_a_patient_hunt_finds(name: str) -> None:
    with pytest.raises(AssertionError):
        track(BROKEN[name], patience=PATIENCE)


def test_a_lazy_server_is_sound_and_a_lazy_broker_in_this_process_is_not() -> None:
    track(Lazy, patience=PATIENCE, examples=50)
    with pytest.raises(AssertionError):
        track(Lazy)
