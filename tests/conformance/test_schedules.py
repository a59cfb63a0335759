"""Every store of schedules sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora.interfaces.schedule import ScheduleStore
from camora.testing.conformance import ScheduleStoreConformance

from tests.conformance.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    if reason := found.missing():
        pytest.skip(reason)
    return found


class TestScheduleStore(ScheduleStoreConformance):
    @pytest.fixture
    def schedules_factory(self, backend: Backend, tmp_path: Path) -> Callable[[], ScheduleStore]:
        def make() -> ScheduleStore:
            store = backend.broker(backend.new_store(tmp_path)).own_schedules()
            assert store is not None
            return store

        return make


def test_broker_and_results_of_one_store_keep_the_same_schedules(backend: Backend, tmp_path: Path) -> None:
    store = backend.new_store(tmp_path)
    assert backend.broker(store).own_schedules() is not None
    if backend.results is None:
        pytest.skip("it keeps no results that everybody can read")
    assert backend.results(store).own_schedules() is not None
