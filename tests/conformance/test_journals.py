"""Every journal sits its exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camora.interfaces.journal import Journal
from camora.testing.conformance import JournalConformance

from tests.conformance.backends import Backend, Companion, sitting, usable, without

SITTING = sitting(Companion.JOURNALS)
OTHERS = without(Companion.JOURNALS)


@pytest.fixture(params=SITTING, ids=[backend.name for backend in SITTING])
def backend(request: pytest.FixtureRequest) -> Backend:
    return usable(request.param)


@pytest.mark.parametrize("other", OTHERS, ids=[backend.name for backend in OTHERS])
def test_the_others_say_that_they_keep_none(other: Backend, tmp_path: Path) -> None:
    assert usable(other).broker(other.new_store(tmp_path)).own_journal() is None


class TestJournal(JournalConformance):
    @pytest.fixture
    def journal_factory(self, backend: Backend, new_store: Callable[[], Any]) -> Callable[[], Journal]:
        self.examples = min(backend.examples, 40)

        def make() -> Journal:
            journal = backend.broker(new_store()).own_journal()
            assert journal is not None
            return journal

        return make

    async def test_a_result_backend_keeps_the_same(self, backend: Backend, new_store: Callable[[], Any]) -> None:
        assert backend.results is not None
        url = new_store()
        first, second = backend.broker(url).own_journal(), backend.results(url).own_journal()
        assert first is not None
        assert second is not None
        await first.open()
        await second.open()
        assert await first.write("j", 2, "a", b"a", 60) == b"a"
        assert await second.claim("j", 1, 60) is None
        assert dict(await second.read("j")) == {"a": b"a"}
        await second.close()
        await first.close()
