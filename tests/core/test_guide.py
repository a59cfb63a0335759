"""The guide for authors of brokers, followed from its first line: commands run, files written, changes applied."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests import forked

GUIDE = Path(__file__).parents[2] / "docs" / "write-a-broker.md"
_BLOCK = re.compile(r"^```(\S+)(?: ([^\n]*))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = {
    "python -m pip install build twine",
    "python -m twine check dist/*",
    "python -m twine upload dist/*",
}
"""Commands that need an index, or what comes from one."""


@attrs.frozen
class Block:
    """A fenced block: its language, what stands behind that, and its text."""

    language: str
    word: str
    text: str


def blocks() -> Iterator[Block]:
    for language, word, text in _BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        yield Block(language, word, text)


class Reader:
    """Does what the guide says, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.said = ""
        """What the last block of commands has printed."""

    def follow(self, block: Block) -> None:
        match block.language:
            case "sh":
                self.said = "".join(self._run(line, fails=block.word == "fails") for line in block.text.splitlines())
            case "text":
                for line in block.text.splitlines():
                    assert line in self.said, f"{line!r} is not in\n{self.said}"
            case "diff":
                self._call(["git", "apply", "--verbose", "-"], given=block.text)
            case _ if block.word.startswith("file="):
                path = self.folder / block.word.removeprefix("file=")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            case other:
                raise AssertionError(f"nobody knows what to do with a block of {other}")

    def _run(self, line: str, *, fails: bool) -> str:
        words = shlex.split(line)
        variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
        words = words[len(variables) :]
        if line in ELSEWHERE:
            return ""
        match words:
            case ["rm", name]:
                for path in self.folder.glob(name):
                    path.unlink()
                return ""
            case ["camora", "worker"]:
                return self._work()
            case ["cd", where]:
                self.folder = (self.folder / where).resolve()
                return ""
            case ["python", "-m", "pip", "install", "-e", ".", "--group", "test"]:
                return self._install()
            case ["python", "-m", "build"]:
                said = self._call([sys.executable, "-m", "build", "--no-isolation"])
                assert sorted(path.suffix for path in (self.folder / "dist").iterdir()) == [".gz", ".whl"]
                return said
            case ["python", *rest]:
                return self._call([sys.executable, *rest])
            case ["camora", *rest]:
                return self._call([sys.executable, "-m", "camora", *rest], fails=fails, **variables)
        raise AssertionError(f"nobody knows how to run {line!r}")

    def _install(self) -> str:
        """As an editable installation, without an index: what the wheel says of itself, and the sources as they are."""
        self._call([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(self.site.parent / "wheels")])
        [wheel] = (self.site.parent / "wheels").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.site, [name for name in archive.namelist() if ".dist-info/" in name])
            assert f"{self.folder.name.replace('-', '_')}/py.typed" in archive.namelist()
        [package] = (self.folder / "src").iterdir()
        (self.site / package.name).symlink_to(package)
        return ""

    def _work(self) -> str:
        """Run a worker until a job has printed something, then stop it as Ctrl-C does."""
        command = [sys.executable, "-m", "camora", "worker"]
        with forked.Popen(
            command, cwd=self.folder, env=self._environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as worker:
            assert worker.stdout is not None
            lines = []
            for line in worker.stdout:
                lines.append(line)
                if line.startswith("hello"):
                    worker.send_signal(signal.SIGINT)
        assert worker.returncode == 0, "".join(lines)
        return "".join(lines)

    @property
    def _environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(self.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTEST_ADDOPTS": "",  # four processes would spend three times as much, and mostly on beginning
            "COLUMNS": "200",
        }

    def _call(self, command: list[str], *, given: str = "", fails: bool = False, **variables: str) -> str:
        # What pytest rewrites must not have been imported before.
        with (subprocess if "pytest" in command else forked).Popen(
            command,
            cwd=self.folder,
            env={**self._environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                said = "\n".join(process.communicate(given, timeout=600))
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert bool(process.returncode) == fails, f"{command}: {process.returncode}\n{said}"
        assert "Traceback" not in said, said
        if "pytest" in command:
            assert " passed" in said
            assert "warning" not in said, said
        return said


@pytest.mark.timeout(1500)
def test_a_stranger_gets_a_broker_that_passes_the_exam(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for block in blocks():
        reader.follow(block)
    # At the end everything is as somebody who publishes wants it.
    plugin = tmp_path / "camora-harbor"
    for words in (["check", "--select", "B,E,F,I,UP,W"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "."]
        done = subprocess.run(command, cwd=plugin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_is_closed_and_of_a_language_that_is_followed() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    found = list(blocks())
    assert text.count("```") == 2 * len(found)
    assert {block.language for block in found} <= {"sh", "text", "diff", "py", "toml"}
