"""The memory broker and result backend sit their exams."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from camora.builtin.memory import MemoryBroker, MemoryResultBackend
from camora.interfaces.broker import Broker
from camora.interfaces.results import ResultBackend
from camora.testing.conformance import BrokerConformance, ResultBackendConformance


class TestMemoryBroker(BrokerConformance):
    lease = 0.3

    @pytest.fixture
    def broker_factory(self) -> Callable[[], Broker]:
        return MemoryBroker

    def results_for(self, broker: Broker) -> ResultBackend:
        assert isinstance(broker, MemoryBroker)
        return MemoryResultBackend(broker.store)


class TestMemoryResultBackend(ResultBackendConformance):
    ttl = 0.2

    @pytest.fixture
    def results_factory(self) -> Callable[[], ResultBackend]:
        return MemoryResultBackend
