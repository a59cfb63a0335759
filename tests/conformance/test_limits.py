"""Every store of limits sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camora.interfaces.limits import Ask, Limit, Limits
from camora.testing.conformance import LimitsConformance

from tests.conformance.backends import Backend, Companion, sitting, usable, without

SITTING = sitting(Companion.LIMITS)
OTHERS = without(Companion.LIMITS)


@pytest.fixture(params=SITTING, ids=[backend.name for backend in SITTING])
def backend(request: pytest.FixtureRequest) -> Backend:
    return usable(request.param)


@pytest.mark.parametrize("other", OTHERS, ids=[backend.name for backend in OTHERS])
def test_the_others_say_that_they_keep_none(other: Backend, tmp_path: Path) -> None:
    assert usable(other).broker(other.new_store(tmp_path)).own_limits() is None


class TestLimits(LimitsConformance):
    @pytest.fixture
    def limits_factory(self, backend: Backend, new_store: Callable[[], Any]) -> Callable[[], Limits]:
        self.lease = self.window = backend.lease

        def make() -> Limits:
            limits = backend.broker(new_store()).own_limits()
            assert limits is not None
            return limits

        return make

    async def test_a_result_backend_counts_in_the_same(self, backend: Backend, new_store: Callable[[], Any]) -> None:
        store = new_store()
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
