"""The app of these tests is a module that other processes import too."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

APPS = Path(__file__).parent / "apps"


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(APPS)
    import orders

    return orders
