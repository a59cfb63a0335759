"""Every store of limits sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora.interfaces.limits import Ask, Limit, Limits
from camora.testing.conformance import LimitsConformance

from tests.conformance.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    found: Backend = request.param
    if reason := found.missing():
        pytest.skip(reason)
    if found.broker(found.new_store(tmp_path)).own_limits() is None:
        pytest.skip(f"{found.name} counts no limits")
    return found


class TestLimits(LimitsConformance):
    @pytest.fixture
    def limits_factory(self, backend: Backend, tmp_path: Path) -> Callable[[], Limits]:
        self.lease = self.window = backend.lease

        def make() -> Limits:
            limits = backend.broker(backend.new_store(tmp_path)).own_limits()
            assert limits is not None
            return limits

        return make

    async def test_a_result_backend_counts_in_the_same(self, backend: Backend, tmp_path: Path) -> None:
        store = backend.new_store(tmp_path)
        first, second = backend.broker(store).own_limits(), backend.results(store).own_limits()
        assert first is not None
        assert second is not None
        await first.open()
        await second.open()
        slot = Limit(name="slot", most=1)
        assert list(await first.take([Ask(holder="one", limits=(slot,))], lease=60)) == [0.0]
        [wait] = await second.take([Ask(holder="two", limits=(slot,))], lease=60)
        assert wait > 0
        await second.close()
        await first.close()
