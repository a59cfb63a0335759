"""Shops that are closed in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .shop import Shop


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    made = Shop()
    async with made.app:
        yield made
