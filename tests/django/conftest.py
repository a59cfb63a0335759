"""The project, on each database that it can be on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.django.projects import Shop, new_shop


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of database."""
    return str(request.param)


@pytest.fixture
def shop(kind: str, tmp_path: Path) -> Shop:
    """A project whose database is migrated, and empty."""
    return new_shop(kind, tmp_path)
