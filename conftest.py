"""Every Python block of the README and the docs is a test: a document is one story, told in a folder of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


class Story:
    """Stands in `sys.modules` for a document, so that annotations in it can be resolved as in any module."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.__dict__ = namespace


def begin(namespace: dict[str, Any]) -> None:
    namespace["__name__"] = "story"
    sys.modules["story"] = Story(namespace)  # type: ignore[assignment]


def end(namespace: dict[str, Any]) -> None:
    del namespace
    sys.modules.pop("story", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = Path.cwd()
    made = tmp_path_factory.mktemp("story")
    os.chdir(made)
    yield made
    os.chdir(before)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["*.md"], setup=begin, teardown=end, fixtures=["folder"]
).pytest()
