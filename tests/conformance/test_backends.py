"""Every broker sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from camora.interfaces.broker import Broker
from camora.interfaces.results import ResultBackend
from camora.testing.conformance import BrokerConformance

from tests.conformance.backends import Backend


class TestBroker(BrokerConformance):
    backend: Backend
    stores: dict[int, Any]

    @pytest.fixture
    def broker_factory(self, backend: Backend, new_store: Callable[[], Any]) -> Callable[[], Broker]:
        self.backend, self.stores, self.lease, self.refunds = backend, {}, backend.lease, backend.refunds

        def make() -> Broker:
            store = new_store()
            broker = backend.broker(store)
            self.stores[id(broker)] = store
            return broker

        return make

    def results_for(self, broker: Broker) -> ResultBackend | None:
        return None if self.backend.results is None else self.backend.results(self.stores[id(broker)])

    async def test_it_settles_into_its_own_results_only(self, rig: Any, new_store: Callable[[], Any]) -> None:
        if self.backend.results is None:
            pytest.skip("it keeps none that everybody can read")
        assert rig.broker.settles_into(rig.results)
        assert rig.broker.twin().settles_into(rig.results.twin())
        assert not rig.broker.settles_into(self.backend.results(new_store()))
