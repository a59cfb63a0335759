"""Workers as processes, and an app beside them, on one SQLite file: unless a module says otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from camora import Camora
from processes import Start, workers


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/camora.db"


@pytest.fixture
def start(tmp_path: Path, url: str) -> Iterator[Start]:
    with workers() as make:
        yield lambda *arguments, **environment: make(tmp_path, url, *arguments, **environment)


@pytest.fixture
async def app(url: str) -> AsyncIterator[Camora]:
    async with Camora(url) as made:
        yield made
