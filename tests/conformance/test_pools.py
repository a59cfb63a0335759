"""The built-in pools sit their exam."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from camora.builtin.pools import make_pool
from camora.interfaces.pool import Pool, PoolSettings
from camora.testing.conformance import PoolConformance


def _factory(kind: str) -> Callable[[int], Pool]:
    return lambda workers: make_pool(kind, PoolSettings(kind=kind, workers=workers))


class TestAsyncPool(PoolConformance):
    runs_async = True

    @pytest.fixture
    def pool_factory(self) -> Callable[[int], Pool]:
        return _factory("async")


class TestSyncPool(PoolConformance):
    concurrent = False

    @pytest.fixture
    def pool_factory(self) -> Callable[[int], Pool]:
        return _factory("sync")


class TestThreadPool(PoolConformance):
    @pytest.fixture
    def pool_factory(self) -> Callable[[int], Pool]:
        return _factory("thread")


class TestProcessPool(PoolConformance):
    @pytest.fixture
    def pool_factory(self) -> Callable[[int], Pool]:
        return _factory("process")
