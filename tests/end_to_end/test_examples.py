"""The example programs do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_orders_are_paid_once_though_a_worker_is_killed(tmp_path: Path) -> None:
    program = [sys.executable, str(EXAMPLES / "orders" / "orders.py"), "--orders", "4"]
    ended = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "with SIGKILL" in ended.stdout
    assert "2 shipped, 2 paid, 2 apologies: ✓" in ended.stdout
