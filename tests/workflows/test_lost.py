"""Moments in which a workflow could be lost, or a job be run twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from camora.dispatchable import Dispatchable
from camora.interfaces import WorkflowStore
from camora_workflows import chord, workflow
from camora_workflows.recording import Recorder

from tests.workflows.shop import Shop

LIMIT = 60.0


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop("memory://")
    async with shop.app:
        yield shop


class Interrupted:
    """A store; before one of its methods does anything for the first time, something else happens."""

    def __init__(self, store: WorkflowStore, method: str, meanwhile: Callable[[], Awaitable[Any]]) -> None:
        self._store = store
        self._method = method
        self._meanwhile: Callable[[], Awaitable[Any]] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name == self._method and self._meanwhile is not None:
                meanwhile, self._meanwhile = self._meanwhile, None
                await meanwhile()
            return await method(*args, **kwargs)

        return call


async def store_of(shop: Shop) -> WorkflowStore:
    store = await (await shop.app.composer._host().stores()).workflows()  # type: ignore[attr-defined]
    assert store is not None
    return store  # type: ignore[no-any-return]


async def dispatched(shop: Shop, store: Any, what: Dispatchable[Any], asked_id: str) -> tuple[str, str]:
    composer: Any = shop.app.composer
    return await Recorder(composer.host, composer.following).dispatch(store, what, asked_id)


@pytest.mark.parametrize("moment", ["add", "start"])
async def test_the_slower_of_two_who_dispatch_under_one_id_deletes_nothing(shop: Shop, moment: str) -> None:
    def what() -> Any:
        return chord([shop.double.s(n) for n in range(3)], shop.total.s()).options(job_id="nightly")

    store = await store_of(shop)

    async def the_other() -> None:
        await what().dispatch()

    slow = Interrupted(store, moment, the_other)
    assert (await dispatched(shop, slow, what(), "nightly"))[0] == "nightly"
    async with shop.app.worker():
        assert await workflow(shop.app, "nightly").result(LIMIT) == 6
    assert sorted(shop.ran) == ["double 0", "double 1", "double 2", "total of 3"]
