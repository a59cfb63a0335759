"""The JSON Schema: another reader of TOML, which knows nothing of camora, judges files by it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from camora import plugins
from camora.config.reading import SECTIONS
from camora.config.schema import schema_of

from tests import forked
from tests.core.config.test_plugin_tables import PLUGIN
from tests.core.config.test_plugin_tables import TEXT as WITH_PLUGINS

RIGHT = """\
app = "shop.tasks:app"
name = { env = "WHO" }
[broker]
url = "sqlite:///shop.db"
synchronous = "normal"
[results]
url = "${RESULTS}"
ttl = "1d"
enabled = true
[codec]
use = "json"
result = "msgpack"
[signing]
keys = [{ env = "KEY" }, { file = "key" }, "plain"]
max_age = "${AGE:-1h}"
[retry]
max_tries = 5
mode = "exponential"
delay = "1m30s"
on = ["OSError"]
[limits]
max_message_size = "512KB"
max_result_size = 1024
dispatch_timeout = 2.5
[worker]
processes = 2
concurrency = "${COUNT}"
lease = "30s"
max_memory = "1 GiB"
[queues.mail]
concurrency = 5
rate_limit = "100/m"
[queues.other]
rate_limit = "5/10s"
[pools.heavy]
kind = "process"
workers = 2
timeout = "5m"
[middleware]
use = ["shop.middleware:Audit", "..."]
[observers]
use = "${OBSERVERS:-logging}"
[logging]
levels = { "job.*" = "debug" }
[tasks."shop.tasks:*"]
timeout = "30s"
ack = "before"
rate_limit = "10/s"
retry_policy = { max_tries = 2, delay = 3 }
[[schedules]]
key = "a"
task = "shop.tasks:report"
cron = "0 9 * * 1-5"
tz = "Europe/Paris"
[[schedules]]
key = "b"
task = "shop.tasks:report"
every = "5m"
args = [1, "x"]
catch_up = "all"
[[schedules]]
key = "c"
task = "shop.tasks:report"
every = { minutes = 5 }
[[schedules]]
key = "d"
task = "shop.tasks:report"
calendar = { hours = [9], weekdays = ["mon"] }
[[schedules]]
key = "e"
task = "shop.tasks:report"
at = 2030-01-02T03:04:00Z
[[schedules]]
key = "f"
task = "shop.tasks:report"
trigger = { use = "every", minutes = 5 }
[plugins]
disable = ["camora-sentry"]
[profiles.prod.broker]
url = "${DATABASE}"
[profiles.prod.pools.heavy]
workers = 9
"""

WRONG = {
    '"ap" is no key': ('ap = "x"', "ap"),
    "a text for a number": ('[worker]\nconcurrency = "many"', "many"),
    "an unknown key": ("[worker]\nleese = 1", "leese"),
    "no duration": ('[worker]\nlease = "1 fortnight"', "1 fortnight"),
    "no size": ('[limits]\nmax_message_size = "10XB"', "10XB"),
    "no rate": ('[queues.mail]\nrate_limit = "100 per minute"', "100 per minute"),
    "a codec that is not installed": ('[codec]\nuse = "jsn"', "jsn"),
    "a pool without a kind": ("[pools.x]\nworkers = 1", "kind"),
    "an unknown kind": ('[pools.x]\nkind = "proces"', "proces"),
    "no choice": ('[tasks."a:*"]\nack = "befor"', "befor"),
    "an option of another table": ("[queues.mail]\ntimeout = 1", "timeout"),
    "a schedule without a task": ('[[schedules]]\nkey = "k"\nevery = "5m"', "task"),
    "an unknown part of an interval": ('[[schedules]]\nkey = "k"\ntask = "t"\nevery = { minuts = 5 }', "minuts"),
    "middleware that is not installed": ('[middleware]\nuse = ["prometheus"]', "prometheus"),
    "an unknown table": ("[redis]\nurl = 1", "redis"),
    "a mistake in a profile": ("[profiles.prod.worker]\nleese = 1", "leese"),
    "a wrong reference": ('[broker]\nurl = { var = "X" }', "var"),
}


@pytest.fixture(scope="module")
def taplo() -> str:
    found = shutil.which("taplo", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        assert not os.environ.get("CI"), "taplo is in the group `test` of pyproject.toml, and must be there"
        pytest.skip("taplo is not installed: pip install taplo")
    return found


def schema_from_command(folder: Path) -> Any:
    done = forked.run(
        [sys.executable, "-m", "camora", "config", "schema"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def judged(taplo: str, folder: Path, schema: Any, text: str) -> tuple[int, str]:
    (folder / "camora.toml").write_text(text)
    (folder / "schema.json").write_text(json.dumps(schema))
    address = (folder / "schema.json").as_uri()
    done = subprocess.run(
        [taplo, "check", "--no-auto-config", "--colors", "never", "--schema", address, "camora.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_right_file_is_right_by_the_schema(taplo: str, folder: Path) -> None:
    (folder / "camora.toml").write_text(RIGHT)
    code, told = judged(taplo, folder, schema_from_command(folder), RIGHT)
    assert code == 0, told


@pytest.fixture(scope="module")
def schema() -> Any:
    """Of what is installed. Making it reads the source of every class of settings."""
    return schema_of(plugins.load())


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_wrong_by_the_schema(taplo: str, schema: Any, folder: Path, what: str) -> None:
    text, culprit = WRONG[what]
    code, told = judged(taplo, folder, schema, f"{text}\n")
    assert code != 0
    assert culprit in told.partition("ERROR")[0]


def test_what_plugins_add_is_in_the_schema(taplo: str, folder: Path) -> None:
    (folder / "own_plugin.py").write_text(PLUGIN)
    (folder / "camora.toml").write_text(WITH_PLUGINS)
    schema = schema_from_command(folder)
    code, told = judged(taplo, folder, schema, WITH_PLUGINS)
    assert code == 0, told
    assert schema["properties"]["audit"]["description"] == "Where to, and how much."
    assert schema["properties"]["broker"]["properties"]["password"]["description"] == "What opens it."
    assert schema["properties"]["audit"]["required"] == ["target"]
    assert "required" not in schema["$defs"]["profile"]["properties"]["audit"]
    for wrong, culprit in [
        ('chunk = "4KiB"', 'chunk = "4 apples"'),
        ('mode = "fast"', 'mode = "fasst"'),
        ("slots = 9", 'slots = "nine"'),
        ("hard = 5", "hrad = 5"),
        ('use = "steady"', 'use = "stedy"'),
    ]:
        code, told = judged(taplo, folder, schema, WITH_PLUGINS.replace(wrong, culprit))
        assert code != 0, culprit


def test_every_section_and_key_is_in_the_schema(schema: Any) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"app", "name", "logging", *SECTIONS} <= set(schema["properties"])
    worker = schema["properties"]["worker"]["properties"]
    assert worker["lease"] == {"$ref": "#/$defs/duration", "default": "30s"}
    assert {"processes", "concurrency", "prefetch", "max_memory"} <= set(worker)
    assert "profiles" not in schema["$defs"]["profile"]["properties"]
    references = {part["$ref"] for part in every_table(schema) if "$ref" in part}
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}


def every_table(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(inner for item in value.values() for inner in every_table(item))]
    return [inner for item in value for inner in every_table(item)] if isinstance(value, list) else []


def test_a_broken_file_does_not_keep_the_schema_from_its_editor(folder: Path) -> None:
    (folder / "camora.toml").write_text("[worker")
    assert "worker" in schema_from_command(folder)["properties"]
    (folder / "camora.toml").write_text('[plugins]\nlocal = ["no_such_plugin"]\nlocl = 5\n[nonsense]\n')
    assert "worker" in schema_from_command(folder)["properties"]
