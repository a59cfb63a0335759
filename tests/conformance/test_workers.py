"""Every directory of workers sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora.interfaces.workers import WorkerDirectory, WorkerInfo
from camora.testing.conformance import WorkerDirectoryConformance

from tests.conformance.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    found: Backend = request.param
    if reason := found.missing():
        pytest.skip(reason)
    if found.broker(found.new_store(tmp_path)).own_workers() is None:
        pytest.skip(f"{found.name} keeps no directory of workers")
    return found


class TestWorkerDirectory(WorkerDirectoryConformance):
    someone = WorkerInfo(name="someone")

    @pytest.fixture
    def directory_factory(self, backend: Backend, tmp_path: Path) -> Callable[[], WorkerDirectory]:
        def make() -> WorkerDirectory:
            found = backend.broker(backend.new_store(tmp_path)).own_workers()
            assert found is not None
            return found

        return make

    async def test_a_result_backend_keeps_the_same(self, backend: Backend, tmp_path: Path) -> None:
        store = backend.new_store(tmp_path)
        first, second = backend.broker(store).own_workers(), backend.results(store).own_workers()
        assert first is not None
        assert second is not None
        await first.open()
        await second.open()
        await second.report(self.someone, ttl=60)
        assert list(await first.list()) == [self.someone]
        await second.close()
        await first.close()
