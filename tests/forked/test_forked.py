"""What is forked is, to all who look at it, what `subprocess` starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import forked

SCRIPT = """
import atexit, json, os, signal, sys, threading
found = {
    "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "name": __name__, "original": sys.orig_argv[1:],
    "environment": sorted(set(os.environ) - {"_"}), "told": os.environ["TOLD"], "stdin": sys.stdin.read(),
    "parent": os.getppid(), "session": os.getsid(0) == os.getpid(), "own": "tests" in sys.modules,
    "streams": [(s.encoding, s.errors, s.line_buffering, s.write_through) for s in (sys.stdout, sys.stderr)],
    "signals": [repr(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)],
    "masked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])], "threads": threading.active_count(),
    "files": len(os.listdir("/proc/self/fd")), "warnings": sys.warnoptions, "bytecode": sys.dont_write_bytecode,
}
print(json.dumps(found))
print("a remark", file=sys.stderr)
atexit.register(print, "the end")
threading.Timer(0.1, print, ["a thread"]).start()
"""
HOW: dict[str, list[str]] = {
    "script": ["told.py"],
    "module": ["-m", "told"],
    "code": ["-c", SCRIPT],
    "warnings": ["-W", "error", "told.py"],
}
ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "told.py").write_text(SCRIPT)
    return tmp_path


def ended(run: Run, folder: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    given: dict[str, Any] = {
        "cwd": folder,
        "env": {**os.environ, "TOLD": "yes"},
        "stdin": subprocess.DEVNULL,
        "capture_output": True,
        "text": True,
        "timeout": 60,
    }
    return run([sys.executable, *words], **{**given, **options})


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start_new_session": True},
        {"env": {**os.environ, "TOLD": "yes", "PYTHONPATH": f"/nowhere:{ROOT}:.:/nowhere"}},
    ],
    ids=["here", "session", "path"],
)
def test_a_process_finds_itself_as_it_does_elsewhere(folder: Path, how: list[str], options: dict[str, Any]) -> None:
    one, other = (ended(run, folder, *how, "a", "b c", **options) for run in (subprocess.run, forked.run))
    first, *rest = one.stdout.splitlines()
    begun, *more = other.stdout.splitlines()
    assert json.loads(begun) == json.loads(first)
    assert (more, other.stderr, other.returncode) == (rest, one.stderr, one.returncode)
    assert rest == ["a thread", "the end"]


@pytest.mark.parametrize("name", ["PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "TZ", "PYTHONHASHSEED"])
def test_variables_of_the_interpreter_count(folder: Path, name: str) -> None:
    words = ["-c", "import sys, time; print(sys.stdout.write_through, sys.dont_write_bytecode, time.tzname, hash('a'))"]
    environment = {**os.environ, name: "1" if name != "TZ" else "JST-9"}
    told = [ended(run, folder, *words, env=environment).stdout.split() for run in (subprocess.run, forked.run)]
    compared = slice(0, None if name == "PYTHONHASHSEED" else -1)
    assert told[0][compared] == told[1][compared]


@pytest.mark.parametrize(
    "code", ["raise SystemExit(7)", "raise SystemExit('no')", "1 / 0", "import os; os.kill(os.getpid(), 9)", "pass"]
)
def test_the_exit_code_is_its_own(folder: Path, code: str) -> None:
    one, other = (ended(run, folder, "-c", code) for run in (subprocess.run, forked.run))
    assert other.returncode == one.returncode
    assert other.stderr.splitlines()[-1:] == one.stderr.splitlines()[-1:]


def test_it_is_a_child_that_is_signalled_waited_for_and_gone() -> None:
    code = "import time; print('begun', flush=True); time.sleep(600)"
    with forked.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        seen = psutil.Process(process.pid)
        assert seen.ppid() == os.getpid()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    assert not seen.is_running()


def test_each_has_an_environment_and_random_numbers_of_its_own(folder: Path) -> None:
    code = "import os, random; print(os.environ.get('OWN'), random.random())"
    texts = [ended(forked.run, folder, "-c", code, env={**os.environ, "OWN": str(n)}).stdout.split() for n in range(3)]
    assert [own for own, _ in texts] == ["0", "1", "2"]
    assert len({number for _, number in texts}) == 3


def test_a_folder_that_is_missing_and_other_programs_are_no_matter_of_it(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ended(forked.run, folder / "nowhere", "-c", "pass")
    assert forked.run(["echo", "yes"], capture_output=True, text=True).stdout == "yes\n"
    (folder / "sitecustomize.py").write_text("import sys\nsys.customized = True\n")
    shown = ended(
        forked.run, folder, "-c", "import sys; print(sys.customized)", env={**os.environ, "PYTHONPATH": str(folder)}
    )
    assert shown.stdout == "True\n"
    # As ever, what cannot be followed later is asked of a new process.
    assert ended(forked.run, folder, "-X", "dev", "-c", "import sys; print(sys.flags.dev_mode)").stdout == "True\n"
