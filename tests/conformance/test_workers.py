"""Every directory of workers sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camora.interfaces.workers import WorkerDirectory, WorkerInfo
from camora.testing.conformance import WorkerDirectoryConformance

from tests.conformance.backends import Backend, Companion, sitting, usable, without

SITTING = sitting(Companion.WORKERS)
OTHERS = without(Companion.WORKERS)


@pytest.fixture(params=SITTING, ids=[backend.name for backend in SITTING])
def backend(request: pytest.FixtureRequest) -> Backend:
    return usable(request.param)


@pytest.mark.parametrize("other", OTHERS, ids=[backend.name for backend in OTHERS])
def test_the_others_say_that_they_keep_none(other: Backend, tmp_path: Path) -> None:
    assert usable(other).broker(other.new_store(tmp_path)).own_workers() is None


class TestWorkerDirectory(WorkerDirectoryConformance):
    someone = WorkerInfo(name="someone")

    @pytest.fixture
    def directory_factory(self, backend: Backend, new_store: Callable[[], Any]) -> Callable[[], WorkerDirectory]:
        def make() -> WorkerDirectory:
            found = backend.broker(new_store()).own_workers()
            assert found is not None
            return found

        return make

    async def test_a_result_backend_keeps_the_same(self, backend: Backend, new_store: Callable[[], Any]) -> None:
        store = new_store()
        first, second = backend.broker(store).own_workers(), backend.results(store).own_workers()
        assert first is not None
        assert second is not None
        await first.open()
        await second.open()
        await second.report(self.someone, ttl=60)
        assert list(await first.list()) == [self.someone]
        await second.close()
        await first.close()
