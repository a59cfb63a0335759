"""`camora config show`: the settings in force, where each comes from, and no secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camora.config import Configuration, read
from camora.config.effective import effective
from camora.config.places import dotted
from camora.config.writing import as_data, as_toml

from tests import forked

Read = Callable[..., Configuration]

TEXT = """\
app = "shop.tasks:app"
[broker]
url = "${URL:-sqlite:///shop.db}"
busy_timeout = 2
[worker]
processes = 2
concurrency = 10
lease = "30s"
[queues.mail]
rate_limit = "100/m"
[pools.heavy]
kind = "process"
[retry]
max_tries = 3
on = ["OSError"]
[observers]
use = ["logging"]
[logging]
levels = { "job.*" = "debug" }
[tasks."shop.tasks:*"]
timeout = "5m"
[[schedules]]
key = "nightly"
task = "shop.tasks:report"
kwargs = { to = "ada", parts = [1, { a = 2 }] }
cron = "0 9 * * 1-5"
tz = "Europe/Paris"
[[schedules]]
key = "pulse"
task = "shop.tasks:ping"
every = { minutes = 5 }
[profiles.prod.worker]
concurrency = 200
"""


def shown(found: Configuration) -> dict[str, tuple[Any, str]]:
    return {dotted(setting.path): (setting.value, setting.origin) for setting in effective(found)}


def test_each_setting_has_its_value_and_its_origin(settings: Read) -> None:
    found = shown(settings(TEXT, profile="prod", CAMORA_WORKER__LEASE="45", CAMORA_NAME="12", URL="sqlite:///x.db"))
    assert found["app"] == ("shop.tasks:app", "camora.toml:1")
    assert found["name"] == ("12", "CAMORA_NAME")
    assert found["broker.url"] == ("sqlite:///x.db", "camora.toml:3, variable URL")
    assert found["worker.processes"] == (2, "camora.toml:6")
    assert found["worker.concurrency"] == (200, "camora.toml:33 (profile prod)")
    assert found["worker.lease"] == (45, "CAMORA_WORKER__LEASE")
    assert found["worker.shutdown_timeout"] == ("30s", "default")
    assert found["worker.max_memory"] == (None, "default")
    assert found["limits.max_message_size"] == ("1MiB", "default")
    assert found["results.ttl"] == ("1d", "default")
    assert found["retry.on"] == (["OSError"], "camora.toml:15")
    assert found["retry.mode"] == ("exponential", "default")
    assert found['logging.levels."job.*"'] == ("debug", "camora.toml:19")
    assert found["logging.logger"] == ("camora.events", "default")
    assert found['tasks."shop.tasks:*".timeout'] == ("5m", "camora.toml:21")
    assert 'tasks."shop.tasks:*".queue' not in found  # what the file leaves open, the code says
    assert found["schedules[0].kwargs.to"] == ("ada", "camora.toml:25")
    assert found["schedules[0].group"] == ("default", "default")
    assert found["schedules[1].every.minutes"] == (5, "camora.toml:31")
    assert found["plugins.local"] == ([], "default")


def test_an_empty_file_shows_the_defaults(settings: Read) -> None:
    found = shown(settings(""))
    assert found["broker.url"] == ("memory://", "default")
    assert found["codec.use"] == ("json", "default")
    assert {origin for _, origin in found.values()} == {"default"}
    assert not any(key.startswith(("logging", "retry", "signing", "schedules")) for key in found)


def test_what_is_shown_can_be_read_and_means_the_same(folder: Path, settings: Read) -> None:
    before = settings(TEXT, profile="prod", CAMORA_WORKER__LEASE="1m30s", CAMORA_QUEUES__MAIL__CONCURRENCY="3")
    for origins in (False, True):
        text = as_toml(effective(before), origins=origins)
        (folder / "camora.toml").write_text(text)
        after = read(folder / "camora.toml", environ={})
        same = ("app", "name", "settings", "worker", "queues", "pools", "task_options")
        assert {name: getattr(after, name) for name in same} == {name: getattr(before, name) for name in same}
        assert before.broker is not None
        assert after.broker is not None
        assert (after.broker.url, after.broker.settings) == (before.broker.url, before.broker.settings)
        assert after.retry is not None
        assert before.retry is not None
        assert after.retry.make() == before.retry.make()
        assert [one.trigger.describe() for one in after.schedules] == [
            one.trigger.describe() for one in before.schedules
        ]
        assert [one.kwargs for one in after.schedules] == [one.kwargs for one in before.schedules]


def test_text_and_data_say_the_same(settings: Read) -> None:
    listed = effective(settings(TEXT))

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(item) for key, item in value.items() if item is not None}
        return [without_none(item) for item in value] if isinstance(value, list) else value

    assert tomllib.loads(as_toml(listed)) == without_none(as_data(listed))


@pytest.mark.parametrize("key", ["plain", "with space", "Ä", 'quo"te', "a.b", "", "new\nline"])
def test_any_key_is_written_so_that_it_can_be_read(settings: Read, key: str) -> None:
    quoted = json.dumps(key)
    found = settings(f'[[schedules]]\nkey = "k"\ntask = "t"\nevery = 5\nkwargs = {{ {quoted} = {{ {quoted} = 1 }} }}\n')
    text = as_toml(effective(found), origins=True)
    assert tomllib.loads(text)["schedules"][0]["kwargs"] == {key: {key: 1}}


SECRETS = ("hunter2-of-the-url", "hunter2-of-the-key-and-it-is-long", "hunter2-of-the-file", "hunter2-of-a-variable")


def camora(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAMORA_")}
    return forked.run(
        [sys.executable, "-m", "camora", "config", *arguments],
        cwd=folder,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [[], ["--origin"], ["--json"], ["--json", "--origin"], ["--profile", "prod"]])
def test_the_command_shows_no_secret(folder: Path, arguments: list[str]) -> None:
    (folder / "password").write_text(f"memory://{SECRETS[2]}\n")
    (folder / "camora.toml").write_text(f"""
name = "shop"
[broker]
url = "memory://ada:{SECRETS[0]}@here"
[results]
url = {{ file = "password" }}
[signing]
keys = [{{ env = "KEY" }}, "{SECRETS[1]}"]
[[schedules]]
key = "k"
task = "shop:sync"
every = "1h"
kwargs = {{ url = "https://ada:{SECRETS[0]}@shop/?token={SECRETS[3]}", again = "{SECRETS[1]}" }}
[profiles.prod.broker]
url = "${{URL}}"
""")
    variables = {"KEY": f"{SECRETS[3]}-and-it-is-long-too", "URL": f"memory://:{SECRETS[3]}@there"}
    done = camora(folder, "show", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert "***" in done.stdout
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr


def test_the_command_prints_toml_or_json(folder: Path) -> None:
    (folder / "camora.toml").write_text(TEXT)
    text = camora(folder, "show", "--origin", "--profile", "prod", URL="sqlite:///x.db")
    assert tomllib.loads(text.stdout)["worker"]["concurrency"] == 200
    assert 'url = "sqlite:///x.db"' in text.stdout
    assert "# camora.toml:3, variable URL" in text.stdout
    answer = json.loads(camora(folder, "show", "--json", "--origin", "--profile", "prod").stdout)
    assert (answer["file"], answer["profile"]) == ("camora.toml", "prod")
    assert answer["settings"]["worker"]["concurrency"] == 200
    assert answer["settings"]["name"] is None
    assert answer["settings"]["schedules"][1]["every"]["minutes"] == 5
    assert answer["origins"]["worker.concurrency"] == "camora.toml:33 (profile prod)"
    assert "origins" not in json.loads(camora(folder, "show", "--json").stdout)
