"""What all tests share: a place for every broker that can run here."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from tests.servers.fixtures import fresh_url

# Hundreds of processes are started: each would compile Django and SQLAlchemy anew where byte code is not kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says how busy the machine is. The suite tries the same examples each time, so that it fails
# because of what was changed; `nox -s explore` looks for others, and what it finds becomes an `@example`.
hypothesis.settings.register_profile(
    "explore", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile("camora", hypothesis.settings.get_profile("explore"), derandomize=True)
hypothesis.settings.load_profile("camora")


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
