from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.backends import BACKENDS, Backend, usable


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> Backend:
    return usable(request.param)


@pytest.fixture(scope="session")
def used_stores() -> dict[str, list[Any]]:
    """Stores that nobody uses now, of backends by name."""
    return defaultdict(list)


@pytest.fixture
def new_store(
    backend: Backend, used_stores: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Any]]:
    """Makes empty stores, another one each time. Where a new one is dear, one that an earlier test has used."""
    folder = tmp_path_factory.getbasetemp()
    used = used_stores[backend.name]
    lent: list[Any] = []

    def make() -> Any:
        if backend.empty is None:
            return backend.new_store(folder)
        if used:
            backend.empty(used[-1])
            lent.append(used.pop())
        else:
            lent.append(backend.new_store(folder))
        return lent[-1]

    yield make
    used += lent
