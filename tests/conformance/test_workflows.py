"""Every store of workflows sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora.interfaces.workflows import WorkflowRecord, WorkflowStore
from camora.testing.conformance import WorkflowStoreConformance

from tests.conformance.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    found: Backend = request.param
    if reason := found.missing():
        pytest.skip(reason)
    if found.broker(found.new_store(tmp_path)).own_workflows() is None:
        pytest.skip(f"{found.name} keeps no workflows")
    return found


class TestWorkflowStore(WorkflowStoreConformance):
    @pytest.fixture
    def workflows_factory(self, backend: Backend, tmp_path: Path) -> Callable[[], WorkflowStore]:
        self.examples = min(backend.examples, 40)

        def make() -> WorkflowStore:
            store = backend.broker(backend.new_store(tmp_path)).own_workflows()
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
