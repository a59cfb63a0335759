"""The hunt can fail: on broken brokers it finds the fault, and with the same examples nothing on a sound one."""

from __future__ import annotations

import pytest
from camora.builtin.memory import MemoryBroker, MemoryStore
from camora.testing.clock import VirtualClock
from camora.testing.conformance import Subject, hunt
from hypothesis import Phase

from tests.conformance.broken import BROKEN, Broken


def test_the_hunt_finds_nothing_in_a_sound_broker() -> None:
    def subject() -> Subject:
        clock = VirtualClock()
        return Subject(broker=MemoryBroker(MemoryStore(clock)), clock=clock, pass_time=clock.advance, lease=10.0)

    # The very examples that expose the broken ones.
    hunt(subject, examples=300, derandomize=True, phases=(Phase.generate,))


@pytest.mark.parametrize("kind", BROKEN.values(), ids=list(BROKEN))
def test_the_hunt_finds(kind: type[Broken]) -> None:
    def subject() -> Subject:
        clock = VirtualClock()
        return Subject(broker=kind(clock=clock), clock=clock, pass_time=clock.advance, lease=10.0)

    # The same examples each time: whether the hunt can see a fault must not be a matter of luck.
    with pytest.raises(AssertionError):
        hunt(subject, examples=600, derandomize=True, phases=(Phase.generate,), report_multiple_bugs=False)
