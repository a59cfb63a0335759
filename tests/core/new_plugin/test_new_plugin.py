"""`camora new-plugin`: for every kind, what it writes is built, installed, sound, and passes its own tests at once."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest
from camora.cli.new_plugin import new_plugin
from camora.cli.new_plugin.command import Kind
from camora.errors import ConfigurationError, PluginConflict

KINDS = get_args(Kind)


def run(folder: Path, *command: str, **environ: str) -> str:
    """What a command says; its failure is the test's."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, **environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def installed(folder: Path, site: Path) -> Path:
    """Build the wheel, and lay it out as an installer does."""
    run(folder, "-m", "hatchling", "build", "-t", "wheel")
    [wheel] = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


# A broker's exam is long: it is sat once, where the guide for authors of brokers is followed (test_guide.py).
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "broker"])
def test_its_own_tests_pass_at_once(kind: Kind, tmp_path: Path) -> None:
    new_plugin("sample", kind=kind, path=tmp_path)
    folder = tmp_path / "camora-sample"
    site = installed(folder, tmp_path / "site")
    assert (site / "camora_sample" / "py.typed").exists()
    said = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", PYTHONPATH=str(site), PYTEST_ADDOPTS="")
    assert " passed" in said
    assert "warning" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_is_clean(kind: Kind, tmp_path: Path) -> None:
    new_plugin("sample", kind=kind, path=tmp_path)
    folder = tmp_path / "camora-sample"
    run(folder, "-m", "ruff", "check", "--no-cache", "--select", "B,C4,E,F,I,PIE,PT,RUF,SIM,UP,W", ".")
    run(folder, "-m", "ruff", "format", "--no-cache", "--check", ".")
    for file in folder.rglob("*.*"):
        text = file.read_text()
        assert "$" not in text, file
        assert "PACKAGE" not in str(file)
    assert "sample" in (folder / "README.md").read_text()


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    new_plugin("sample", kind="codec", path=tmp_path)
    plugin = tmp_path / "camora-sample" / "src" / "camora_sample" / "plugin.py"
    plugin.write_text("mine")
    with pytest.raises(ConfigurationError, match="camora-sample exists already, and nothing is overwritten"):
        new_plugin("sample", kind="codec", path=tmp_path)
    assert plugin.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "a name is of lower-case letters"),
        ("9lives", "a name is of lower-case letters"),
        ("My_Broker", "'my-broker' would do"),
        ("CamelCase", "'camel-case' would do"),
        ("../escape", "'escape' would do"),
        ("a--b", "'a-b' would do"),
        ("x" * 41, "at most 40"),
        ("class", "a word of Python's own"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=text):
        new_plugin(name, kind="broker", path=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginConflict, match=r"builtin \(camora .*\) offers the name 'json' already"):
        new_plugin("json", kind="codec", path=tmp_path)
    with pytest.raises(PluginConflict, match="offers the name 'memory' already"):
        new_plugin("camora-memory", kind="broker", path=tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="camora-sample cannot be written"):
        new_plugin("sample", kind="codec", path=tmp_path / "file")
