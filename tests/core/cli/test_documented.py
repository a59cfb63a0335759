"""The page about the command line says all that there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from camora.cli import reasons
from camora.cli.codes import MEANINGS

from .commands import command_paths

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
PATHS = dict(command_paths())
OWN = ("init", "demo", "dispatch", "job", "why", "dead", "queues", "doctor")
"""Those of which this page is the only one."""


@pytest.mark.parametrize("path", PATHS)
def test_every_command_is_there(path: str) -> None:
    group, _, word = path.partition(" ")
    paragraphs = [text for text in PAGE.split("\n\n") if f"camora {group}" in text]
    assert any(re.search(rf"\b{word}\b", text) for text in paragraphs)


def _path(value: object) -> str:
    return value if isinstance(value, str) else ""  # an app's text has its address in it


@pytest.mark.parametrize(("path", "app"), [(p, a) for p, a in PATHS.items() if p.split()[0] in OWN], ids=_path)
def test_every_option_is_there(path: str, app: Any) -> None:
    names = [argument.name for argument in app.assemble_argument_collection() if argument.name.startswith("-")]
    assert [name for name in names if name not in PAGE] == []


def test_exit_codes_are_there_with_their_meaning() -> None:
    for code, text in MEANINGS:
        assert re.search(
            rf"^\| {code} \| {re.escape(text.split(';')[0].split('.')[0].split(',')[0])}", PAGE, re.MULTILINE
        ), code


def test_the_codes_of_reasons_are_there() -> None:
    assert reasons.__file__ is not None
    codes = set(re.findall(r'Reason\(\s*"([a-z-]+)"', Path(reasons.__file__).read_text()))
    assert len(codes) > 10
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()
