"""What sits the exams."""

from __future__ import annotations

import pytest

from tests.conformance.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    if reason := found.missing():
        pytest.skip(reason)
    return found
