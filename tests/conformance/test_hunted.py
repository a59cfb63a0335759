"""Every broker is hunted. In a module of its own, so that it is while others sit their exams."""

from __future__ import annotations

from pathlib import Path

from camora.testing.conformance import hunt
from hypothesis import Phase

from tests.conformance.backends import Backend


def test_the_hunt_finds_nothing(backend: Backend, tmp_path: Path) -> None:
    phases = (Phase.generate,) if backend.real_time else tuple(Phase)
    hunt(lambda: backend.subject(tmp_path), examples=backend.examples, phases=phases)
