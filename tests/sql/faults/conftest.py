"""The rig that every fault is tried on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sql.faults.rig import Rig, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as made:
        yield made


@pytest.fixture(params=["asyncpg", "psycopg"])
def either_rig(request: pytest.FixtureRequest, rig: Rig) -> Rig:
    """By each driver."""
    rig.driver = request.param
    return rig
