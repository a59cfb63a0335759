"""The command line as people meet it: in a process of its own, by its output and exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forked

SHOP = """
import asyncio
from camora import Camora
app = Camora("{url}")

@app.task(name="add", queue="sums")
async def add(x: int, y: int) -> int:
    return x + y

other = 5
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP.format(url=f"sqlite:///{tmp_path}/camora.db"))
    (tmp_path / "lonely.py").write_text(SHOP.format(url="memory://"))
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    (tmp_path / "scheme.py").write_text('from camora import Camora\napp = Camora("nats://localhost")\n')
    (tmp_path / "missing.py").write_text(
        SHOP.format(url="memory://") + "\nclass C: ...\n\n@app.task\ndef f(c: C): ...\n"
    )
    return tmp_path


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def camora(folder: Path, *arguments: str, run: Run = forked.run) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "camora", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["worker", "nothing:app"], "there is no module 'nothing'"),
        (["worker", "shop"], "write module:attribute"),
        (["worker", "shop:ap"], "has no 'ap'; did you mean 'app'?"),
        (["worker", "shop:other"], "is a int, not a Camora"),
        (["worker", "no/such.py:app"], "there is no file no/such.py"),
        (["worker", "broken:app"], "broken imports 'no_such_library', which is not installed"),
        (["worker", "scheme:app"], "no plugin offers the URL scheme 'nats'"),
        (["worker", "shop:app", "--processes", "many"], "--processes 'many': a whole number from 1, or auto"),
        (["worker", "shop:app", "--concurrency", "0"], "worker: concurrency: must be more than 0, found 0"),
        (["worker", "shop:app", "--queues", "a b"], "queue name 'a b'"),
        (["worker", "shop:app", "--log-level", "loud"], "one of debug, info, warning, error"),
        (["worker", "lonely:app", "--processes", "2"], "lives in one process"),
        (["worker", "missing:app"], "nobody provides C for its parameter 'c'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_with_one_text_and_code_2(shop: Path, arguments: list[str], text: str) -> None:
    done = camora(shop, *arguments)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_burst_worker_does_what_is_due_and_ends_well(shop: Path) -> None:
    done = camora(shop, "worker", "shop:app", "--burst", run=subprocess.run)
    assert done.returncode == 0, done.stderr
    assert "takes jobs of default, sums" in done.stderr


def test_plugins_are_listed_and_the_chain_with_them(shop: Path) -> None:
    assert "brokers: memory" in camora(shop, "plugins").stdout
    found = json.loads(camora(shop, "plugins", "shop:app", "--json").stdout)
    assert {plugin["name"] for plugin in found["plugins"]} >= {"builtin", "sql"}
    assert found["chain"][-1] == {"name": "CallFunction", "phase": "inner", "origin": "camora"}


def test_help_and_version(shop: Path) -> None:
    assert "worker" in camora(shop, "--help", run=subprocess.run).stdout
    assert camora(shop, "--version").stdout.strip() == "0.1.0"


def test_a_script_that_starts_processes_unguarded_is_told_so(shop: Path) -> None:
    (shop / "script.py").write_text((shop / "shop.py").read_text() + "\napp.run(processes=2)\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=shop, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert 'if __name__ == "__main__":' in done.stderr


def test_a_script_runs_worker_processes_and_stops_them(shop: Path) -> None:
    (shop / "script.py").write_text(
        (shop / "shop.py").read_text()
        + """
def main() -> None:
    workers = app.start_processes(processes=2, threads={"sums": 3})
    jobs = [add.dispatch_sync(number, 1) for number in range(20)]
    assert [job.result_sync(30) for job in jobs] == [number + 1 for number in range(20)]
    assert len(workers.pids) == 2
    workers.stop()
    assert workers.join(30) == 0
    assert workers.pids == []
    app.close_sync()
    print("well")

if __name__ == "__main__":
    main()
"""
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=shop, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "well"
