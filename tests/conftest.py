"""What all tests share: a place for every broker that can run here."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "sqlite"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL of a fresh, empty broker."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/camora.db"
