"""The hunt: on sound brokers it finds nothing, and on broken ones it finds the fault."""

from __future__ import annotations

import pytest
from camora.builtin.memory import MemoryBroker, MemoryStore
from camora.testing.clock import VirtualClock
from camora.testing.conformance import Subject, hunt
from hypothesis import Phase

from tests.conformance.broken import BROKEN, Broken


def test_the_memory_broker_survives_the_hunt() -> None:
    def subject() -> Subject:
        clock = VirtualClock()
        return Subject(broker=MemoryBroker(MemoryStore(clock)), clock=clock, pass_time=clock.advance, lease=10.0)

    hunt(subject, examples=200)
    # And with the very examples that expose the broken ones below.
    hunt(subject, examples=300, derandomize=True)


@pytest.mark.parametrize("kind", BROKEN.values(), ids=list(BROKEN))
def test_the_hunt_finds(kind: type[Broken]) -> None:
    def subject() -> Subject:
        clock = VirtualClock()
        return Subject(broker=kind(clock=clock), clock=clock, pass_time=clock.advance, lease=10.0)

    # The same examples each time: whether the hunt can see a fault must not be a matter of luck.
    with pytest.raises(AssertionError):
        hunt(subject, examples=1000, derandomize=True, phases=(Phase.generate,), report_multiple_bugs=False)
