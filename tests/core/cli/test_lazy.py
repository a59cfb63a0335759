"""Packages that import their names late: nothing is missing, and what is not asked for is not paid for."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ["camora", "camora.interfaces"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_the_one_that_type_checkers_see(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == sorted(module.__all__)
    for name, home in seen.items():
        assert getattr(module, name) is getattr(importlib.import_module(str(home)), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_refused_as_always(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nonsense'"):
        _ = importlib.import_module(package).Nonsense
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec(f"from {package} import Nonsense")


def test_a_plugin_s_module_costs_no_event_loop_and_no_wire_format() -> None:
    code = (
        "import sys; from camora import hookimpl, Provider; from camora.interfaces import Command\n"
        "print(sorted({'asyncio', 'msgspec', 'cyclopts', 'rich', 'cattrs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
