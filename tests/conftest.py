"""What all tests share: a place for every broker that can run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.fixtures import fresh_url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL of a fresh, empty broker."""
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{tmp_path}/camora.db"
        case _:
            return fresh_url("redis")
