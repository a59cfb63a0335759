"""Every store of schedules sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora.interfaces.schedule import ScheduleStore
from camora.testing.conformance import ScheduleStoreConformance

from tests.conformance.backends import BACKENDS, Backend

KEEPERS = [backend for backend in BACKENDS if backend.schedules]
OTHERS = [backend for backend in BACKENDS if not backend.schedules]


@pytest.fixture(params=KEEPERS, ids=[backend.name for backend in KEEPERS])
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


@pytest.mark.parametrize("other", OTHERS, ids=[backend.name for backend in OTHERS])
def test_the_others_say_that_they_keep_none(other: Backend, tmp_path: Path) -> None:
    assert other.broker(other.new_store(tmp_path)).own_schedules() is None
