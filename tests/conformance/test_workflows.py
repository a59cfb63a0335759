"""Every store of workflows sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camora.interfaces.workflows import WorkflowRecord, WorkflowStore
from camora.testing.conformance import WorkflowStoreConformance

from tests.conformance.backends import Backend, Companion, sitting, usable, without

SITTING = sitting(Companion.WORKFLOWS)
OTHERS = without(Companion.WORKFLOWS)


@pytest.fixture(params=SITTING, ids=[backend.name for backend in SITTING])
def backend(request: pytest.FixtureRequest) -> Backend:
    return usable(request.param)


@pytest.mark.parametrize("other", OTHERS, ids=[backend.name for backend in OTHERS])
def test_the_others_say_that_they_keep_none(other: Backend, tmp_path: Path) -> None:
    assert usable(other).broker(other.new_store(tmp_path)).own_workflows() is None


class TestWorkflowStore(WorkflowStoreConformance):
    @pytest.fixture
    def workflows_factory(self, backend: Backend, new_store: Callable[[], Any]) -> Callable[[], WorkflowStore]:
        self.examples = min(backend.examples, 40)

        def make() -> WorkflowStore:
            store = backend.broker(new_store()).own_workflows()
            assert store is not None
            return store

        return make

    async def test_a_result_backend_keeps_the_same(self, backend: Backend, new_store: Callable[[], Any]) -> None:
        assert backend.results is not None
        url = new_store()
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
