"""Every result backend sits its exam. In a module of its own, so that it can do so beside the brokers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from camora.interfaces.results import ResultBackend
from camora.testing.conformance import ResultBackendConformance

from tests.conformance.backends import Backend, Companion, sitting, usable

SITTING = sitting(Companion.RESULTS)


@pytest.fixture(params=SITTING, ids=[backend.name for backend in SITTING])
def backend(request: pytest.FixtureRequest) -> Backend:
    return usable(request.param)


class TestResultBackend(ResultBackendConformance):
    @pytest.fixture
    def results_factory(self, backend: Backend, new_store: Callable[[], Any]) -> Callable[[], ResultBackend]:
        self.ttl = backend.lease
        assert backend.results is not None
        return lambda: backend.results(new_store())
