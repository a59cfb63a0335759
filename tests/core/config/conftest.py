"""A folder with a camora.toml, read without this machine's own variables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camora.config import Configuration, read
from camora.errors import SettingsError

Read = Callable[..., Configuration]
Problems = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAMORA_PROFILE", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def settings(folder: Path) -> Read:
    """Settings from this text as camora.toml, and these variables."""

    def from_text(text: str, *, profile: str | None = None, **environ: str) -> Configuration:
        path = folder / "camora.toml"
        path.write_text(text)
        return read(path, profile=profile, environ=environ)

    return from_text


@pytest.fixture
def problems(settings: Read) -> Problems:
    """The mistakes that reading this text finds, without the file's name."""

    def of(text: str, **more: Any) -> list[str]:
        with pytest.raises(SettingsError) as error:
            settings(text, **more)
        assert str(error.value).splitlines() == list(error.value.problems)
        return [problem.removeprefix("camora.toml:") for problem in error.value.problems]

    return of
