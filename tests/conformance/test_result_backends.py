"""Every result backend sits its exam. In a module of its own, so that it can do so beside the brokers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora.interfaces.results import ResultBackend
from camora.testing.conformance import ResultBackendConformance

from tests.conformance.backends import Backend


class TestResultBackend(ResultBackendConformance):
    @pytest.fixture
    def results_factory(self, backend: Backend, tmp_path: Path) -> Callable[[], ResultBackend]:
        self.ttl = backend.lease
        if backend.results is None:
            pytest.skip("it keeps none that everybody can read")
        return lambda: backend.results(backend.new_store(tmp_path))
