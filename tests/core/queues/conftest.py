"""Apps on a broker that has more than plain queues."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from camora import Camora, plugins
from camora.plugins import Catalog, Source

from tests.core.queues import bus_plugin


def source(module: Any, name: str = "bus", distribution: str = "camora-bus") -> Source:
    return Source(name=name, distribution=distribution, version="1.0", load=lambda: module)


def catalog_with(*modules: ModuleType) -> Catalog:
    sources = [*plugins.discover({}), *(source(module) for module in modules)]
    return plugins.load(sources, disable=["camora-amqp", "camora-redis", "camora-servicebus"])


@pytest.fixture
def catalog() -> Catalog:
    """The built-in plugins, and the one of these tests."""
    return catalog_with(bus_plugin)


@pytest.fixture
def bus(catalog: Catalog) -> Camora:
    """An app on a broker that serves the kind and reads the options."""
    return Camora("bus://", catalog=catalog)


@pytest.fixture
def plain(catalog: Catalog) -> Camora:
    """An app where both are known, and whose broker serves neither."""
    return Camora("memory://", catalog=catalog)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with this machine's own variables out of the way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAMORA_PROFILE", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path
