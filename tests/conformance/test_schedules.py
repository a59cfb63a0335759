"""Every store of schedules sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camora.interfaces.schedule import ScheduleStore
from camora.testing.conformance import ScheduleStoreConformance

from tests.conformance.backends import Backend, Companion, sitting, usable, without

SITTING = sitting(Companion.SCHEDULES)
OTHERS = without(Companion.SCHEDULES)


@pytest.fixture(params=SITTING, ids=[backend.name for backend in SITTING])
def backend(request: pytest.FixtureRequest) -> Backend:
    return usable(request.param)


@pytest.mark.parametrize("other", OTHERS, ids=[backend.name for backend in OTHERS])
def test_the_others_say_that_they_keep_none(other: Backend, tmp_path: Path) -> None:
    assert usable(other).broker(other.new_store(tmp_path)).own_schedules() is None


class TestScheduleStore(ScheduleStoreConformance):
    @pytest.fixture
    def schedules_factory(self, backend: Backend, new_store: Callable[[], Any]) -> Callable[[], ScheduleStore]:
        def make() -> ScheduleStore:
            store = backend.broker(new_store()).own_schedules()
            assert store is not None
            return store

        return make


def test_broker_and_results_of_one_store_keep_the_same_schedules(
    backend: Backend, new_store: Callable[[], Any]
) -> None:
    store = new_store()
    assert backend.broker(store).own_schedules() is not None
    if backend.results is None:
        pytest.skip("it keeps no results that everybody can read")
    assert backend.results(store).own_schedules() is not None
