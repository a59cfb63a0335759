"""Every store of workflows sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from camora.interfaces.workflows import WorkflowRecord, WorkflowStore
from camora.testing.conformance import WorkflowStoreConformance

from tests.conformance.backends import BACKENDS, Backend

KEEPERS = [backend for backend in BACKENDS if backend.results is not None]
OTHERS = [backend for backend in BACKENDS if backend.results is None]


@pytest.fixture(scope="module", params=KEEPERS, ids=[backend.name for backend in KEEPERS])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    if reason := found.missing():
        pytest.skip(reason)
    return found


@pytest.mark.parametrize("other", OTHERS, ids=[backend.name for backend in OTHERS])
def test_the_others_say_that_they_keep_none(other: Backend, tmp_path: Path) -> None:
    if reason := other.missing():
        pytest.skip(reason)
    assert other.broker(other.new_store(tmp_path)).own_workflows() is None


@pytest.fixture(scope="module")
def long_lived(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store for all of these tests, where a new one is dear; else None."""
    return backend.new_store(tmp_path_factory.mktemp("store")) if backend.dear else None


@pytest_asyncio.fixture
async def emptied(backend: Backend, long_lived: Any) -> Any:
    """The same without any workflows."""
    if long_lived is not None:
        store = backend.broker(long_lived).own_workflows()
        assert store is not None
        await store.open()
        while found := await store.list():
            await store.delete([one.id for one in found])
        await store.close()
    return long_lived


class TestWorkflowStore(WorkflowStoreConformance):
    @pytest.fixture
    def workflows_factory(self, backend: Backend, emptied: Any, tmp_path: Path) -> Callable[[], WorkflowStore]:
        self.examples = min(backend.examples, 40)

        def make() -> WorkflowStore:
            store = backend.broker(emptied or backend.new_store(tmp_path)).own_workflows()
            assert store is not None
            return store

        return make

    async def test_a_result_backend_keeps_the_same(self, backend: Backend, tmp_path: Path) -> None:
        assert backend.results is not None
        url = backend.new_store(tmp_path)
        first, second = backend.broker(url).own_workflows(), backend.results(url).own_workflows()
        assert first is not None
        assert second is not None
        await first.open()
        await second.open()
        assert await first.create(WorkflowRecord(id="w"))
        assert not await second.create(WorkflowRecord(id="w"))
        assert await second.delete(["w"]) == 1
        assert await first.get("w") is None
        await second.close()
        await first.close()
