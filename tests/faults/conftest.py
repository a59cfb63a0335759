"""The rig of every kind of server: what is tried here must go well on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rig import Rig
from tests.faults.rigs import RIGS


@pytest.fixture(params=["redis", "postgresql", "mariadb", "rabbitmq", "servicebus"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with RIGS[request.param](tmp_path) as made:
        yield made
