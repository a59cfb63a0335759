"""What reaches the log of a worker: its own news, and not the client library's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.servers.servicebus.shared import fresh_url

APP = """
import os
from camora import Camora

app = Camora(os.environ["SHOP_URL"])


@app.task(name="work")
async def work() -> None:
    ...
"""


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_workers_log_is_its_own_unless_it_is_for_debugging(
    tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.setenv("SHOP_URL", fresh_url(["default"], lock_duration=5.0))
    forked.run([sys.executable, "-m", "camora", "dispatch", "work", "--app", "shop:app"], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "camora", "worker", "shop:app", "--burst", "--log-level", level]
    worker = forked.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    log = worker.stdout + worker.stderr
    assert "it settled 1 jobs" in log
    assert ("state changed" in log) == (level == "debug")
    assert ("Request URL" in log) == (level == "debug")


def test_a_namespace_that_is_away_is_told_by_the_worker_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.setenv("SHOP_URL", "servicebus://name:a2V5@127.0.0.1:1?emulator=true")
    command = [sys.executable, "-m", "camora", "worker", "shop:app"]
    lines = []
    with forked.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.append(line)
            if "broker away" in line:
                worker.terminate()
    assert not [line for line in lines if re.search("AMQP|amqp|Failed to initiate", line)], lines
    assert "no connection comes about: Connection refused" in "".join(lines)
