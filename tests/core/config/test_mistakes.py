"""One file with many mistakes: the whole answer, word for word, as somebody sees it in a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from camora.plugins import load

from tests import forked

SECRET = "hunter2"

TEXT = """\
ap = "shop.tasks:app"
name = 5

[broker]
url = "sqlite:///shop.db"
busy_timeot = "3s"

[results]
url = "sqlitte://ada:hunter2@db/shop"
ttl = "1 fortnight"

[codec]
use = "jsn"

[signing]
keys = [{ env = "NO_SUCH_KEY" }]

[worker]
concurrency = "many"
lease = 0
shutdown_timeot = "3s"

[queues.mail]
rate_limit = "100 per minute"

[pools.heavy]
kind = "proces"

[middleware]
use = ["audit"]

[tasks."shop.tasks:*"]
timeout = "soon"
ack = "befor"

[[schedules]]
key = "nightly"
task = "shop.tasks:report"
cron = "0 25 * * *"
tz = "Europe/Pariss"

[brocker]
url = "memory://"
"""

ANSWER = """\
camora: camora.toml:1:1: ap: unknown setting: did you mean 'app'?
camora.toml:2:1: name: expected a text, found 5
camora.toml:6:1: broker.busy_timeot: unknown setting: did you mean 'busy_timeout'?
camora.toml:9:1: results.url: no plugin offers the URL scheme 'sqlitte' for result backends. \
Installed: @schemes@. Did you mean 'sqlite'?
camora.toml:10:1: results.ttl: expected a duration such as "30s", found '1 fortnight'
camora.toml:13:1: codec.use: no plugin offers a codec called 'jsn'. \
Installed: json, msgpack. Did you mean 'json'?
camora.toml:16:9: signing.keys[0]: variable 'NO_SUCH_KEY' is not set
camora.toml:19:1: worker.concurrency: expected a whole number, found 'many'
camora.toml:20:1: worker.lease: must be more than 0, found 0
camora.toml:21:1: worker.shutdown_timeot: unknown setting: did you mean 'shutdown_timeout'?
camora.toml:24:1: queues.mail.rate_limit: expected a rate such as "100/m", found '100 per minute'
camora.toml:27:1: pools.heavy.kind: no plugin offers a pool called 'proces'. \
Installed: async, process, sync, thread. Did you mean 'process'?
camora.toml:30:8: middleware.use[0]: unknown middleware 'audit': known are none; your own is written "module:attribute"
camora.toml:33:1: tasks."shop.tasks:*".timeout: expected a duration such as "30s", found 'soon'
camora.toml:34:1: tasks."shop.tasks:*".ack: expected one of 'after', 'before', 'always', found 'befor': \
did you mean 'before'?
camora.toml:39:1: schedules[0].cron: bad hour field '25': expected 0 to 23
camora.toml:40:1: schedules[0].tz: there is no time zone 'Europe/Pariss'; did you mean 'Europe/Paris'?
camora.toml:42:2: brocker: unknown section: did you mean 'broker'?
CAMORA_WORKER__PROCESSES: worker.processes: expected a whole number, found 'two'
"""


@pytest.mark.parametrize(
    "command",
    [["worker"], ["scheduler"], ["config", "check"], ["config", "show"], ["config", "show", "--json"], ["queues"]],
)
def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "camora.toml").write_text(TEXT)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CAMORA_")}
    done = forked.run(
        [sys.executable, "-m", "camora", *command],
        cwd=tmp_path,
        env={**environ, "CAMORA_WORKER__PROCESSES": "two"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    offered = {scheme for item in load().items["camora_result_backends"].values() for scheme in item.schemes}
    answer = ANSWER.replace("@schemes@", ", ".join(sorted(scheme for scheme in offered if "+" not in scheme)))
    checks = command == ["config", "check"]  # its answer is the mistakes themselves
    assert done.stderr == (answer.removeprefix("camora: ") if checks else answer)
    assert done.stdout == ""
    assert done.returncode == 2
    assert SECRET not in done.stderr
