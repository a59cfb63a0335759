"""Help: of every command, complete, and at the price of no more than it needs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .commands import command_paths
from .conftest import Run

PATHS = dict(command_paths())


@pytest.mark.parametrize("path", PATHS)
def test_every_command_has_help(camora: Run, path: str) -> None:
    done = camora(*path.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: camora {path} ")
    assert done.stderr == ""


@pytest.mark.parametrize(("path", "app"), PATHS.items(), ids=PATHS)
def test_every_parameter_of_it_is_explained(path: str, app: Any) -> None:
    assert app.help, path
    documented = inspect.getdoc(app.default_command) or ""
    unexplained = [
        argument.name
        for argument in app.assemble_argument_collection()
        if argument.show and not argument.parameter.help and f"\n{argument.field_info.name}\n    " not in documented
    ]
    assert unexplained == []


def imported(arguments: list[str], folder: Path) -> set[str]:
    """The packages that a command has imported when it ends, and modules of camora."""
    code = (
        "import sys\nfrom camora.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    return set(done.stderr.split())


# What plugins' modules need themselves (pluggy, and msgspec for the interfaces) is theirs to import.
HEAVY = {"asyncio", "cattrs", "cyclopts", "rich", "sqlalchemy", "svcs", "camora.app"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"], ["--version"]], ids=" ".join)
def test_the_front_page_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    assert imported(arguments, tmp_path) & HEAVY == set()


@pytest.mark.parametrize("path", ["queues", "dispatch", "why", "dead"])
def test_help_of_a_command_imports_neither_the_app_nor_its_broker(tmp_path: Path, path: str) -> None:
    found = imported([path, "--help"], tmp_path)
    assert "cyclopts" in found
    assert found & {"camora.app", "sqlalchemy", "camora_sql", "camora.worker"} == set()


def test_a_command_imports_no_other(folder: Path) -> None:
    others = {"camora.cli.dispatch", "camora.cli.dead", "camora.cli.worker", "camora.cli.doctor", "camora.cli.config"}
    assert imported(["queues", "--app", "tasks:app"], folder) & others == set()
