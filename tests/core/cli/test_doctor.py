"""`camora doctor`: its order, its fixes, its exit code; checks of plugins, and those that misbehave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

APP = ("--app", "tasks:app")

PLUGIN = """
import threading
from camora import hookimpl
from camora.interfaces import Check, CheckResult

async def last(app):
    return CheckResult(ok=True, text=f"looked at {app.name}")

async def raises(app):
    raise RuntimeError("redis://me:hunter2@host/0 went away")

async def blocks(app):
    threading.Event().wait()

async def returns_nothing(app):
    pass

@hookimpl
def camora_checks():
    return [
        Check(name="last", run=last, order=1000),
        Check(name="raises", run=raises, order=1),
        Check(name="blocks", run=blocks, order=2, timeout=0.05),
        Check(name="returns nothing", run=returns_nothing, order=3),
    ]
"""


def findings(camora: Run, *arguments: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = camora("doctor", "--json", *arguments, **environment)
    assert done.stdout, done.stderr
    data = json.loads(done.stdout)
    found = {check["name"]: check for check in data["checks"]}
    assert data["ok"] == all(check["state"] != "failed" for check in found.values())
    assert (done.returncode == 0) == data["ok"]
    return done.returncode, found


def test_a_sound_set_up_passes_in_order(camora: Run) -> None:
    code, found = findings(camora, *APP)
    assert code == 0, found
    names = list(found)
    assert names[:5] == ["python", "libraries", "plugins", "settings", "app"]
    assert names.index("tasks") < names.index("broker") < names.index("broker writes") < names.index("dead letters")
    assert "msgspec" in found["libraries"]["text"]
    assert found["settings"]["text"].startswith("no camora.toml")
    assert not any(check["state"] in ("failed", "skipped") for check in found.values())


def test_nothing_is_left_behind(camora: Run) -> None:
    before = camora("queues", "--json", *APP).stdout
    findings(camora, *APP)
    assert camora("queues", "--json", *APP).stdout == before


def test_a_broker_that_cannot_be_opened_fails_with_its_fix_and_spares_the_rest(camora: Run, folder: Path) -> None:
    (folder / "camora.toml").write_text('[broker]\nurl = "sqlite:///nowhere/camora.db"\n')
    code, found = findings(camora)
    assert code == 1
    assert [name for name, check in found.items() if check["state"] == "failed"] == ["database place"]
    assert "mkdir" in found["database place"]["fix"]
    assert found["broker"]["text"] == "not looked at: database place failed"
    assert found["clock"]["state"] == "ok"  # it does without the broker
    assert found["results"]["state"] == "skipped"
    assert found["dead letters"]["state"] == "skipped"


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        (
            '[broker]\nurl = "sqlite:///x.db"\n[worker]\nlease = "3x"\nproceses = 2\n',
            ["camora.toml:4", "camora.toml:5"],
        ),
        ('app = "nothing:app"\n', ["there is no module 'nothing'"]),
        ("[broker\n", ["is no TOML"]),
    ],
    ids=["settings", "module", "syntax"],
)
def test_mistakes_in_the_settings_are_a_failed_check(
    camora: Run, folder: Path, settings: str, texts: list[str]
) -> None:
    (folder / "camora.toml").write_text(settings)
    code, found = findings(camora)
    assert code == 1
    assert list(found)[-1] == "app"
    for text in texts:
        assert text in found["app"]["text"]


def test_a_missing_dependency_and_a_missing_pool_are_named(camora: Run, folder: Path) -> None:
    (folder / "tasks.py").write_text(
        'from camora import Camora\nclass Mailer: ...\napp = Camora("sqlite:///camora.db")\n'
        '@app.task\ndef send(mailer: Mailer): ...\n@app.task(pool="heavy")\ndef crunch(): ...\n'
    )
    code, found = findings(camora, *APP)
    assert code == 1
    assert "nobody provides Mailer" in found["tasks"]["text"]
    assert "there is no pool 'heavy'" in found["tasks"]["text"]
    assert found["broker"]["state"] == "ok"


def test_advice_does_not_fail(camora: Run) -> None:
    camora("dispatch", "add", "1", "2", *APP)
    camora("queues", "pause", "sums", *APP)
    code, found = findings(camora, *APP)
    assert code == 0
    assert (found["queues"]["state"], found["queues"]["fix"]) == ("advice", "camora queues resume sums")
    assert "could be better" in camora("doctor", *APP).stdout


def test_dead_letters_are_seen(camora: Run, folder: Path) -> None:
    camora("dispatch", "fail", "to=x", *APP)
    done = camora("worker", "--burst", *APP)
    assert done.returncode == 0, done.stderr
    _, found = findings(camora, *APP)
    assert found["dead letters"]["text"].startswith("1 wait")


def test_a_broker_of_one_process_for_several_fails(camora: Run, folder: Path) -> None:
    (folder / "camora.toml").write_text('[broker]\nurl = "memory://"\n[worker]\nprocesses = 2\n')
    code, found = findings(camora)
    assert code == 1
    assert "2 worker processes" in found["durability"]["text"]


def test_limits_that_nothing_counts_fail(camora: Run, folder: Path) -> None:
    (folder / "tasks.py").write_text(
        "from camora import Camora\nfrom camora.builtin.memory.broker import MemoryBroker\n"
        "class Without(MemoryBroker):\n    def own_limits(self): return None\n"
        'app = Camora(broker=Without(), results=False)\n@app.task(rate_limit="1/s")\ndef send(): ...\n'
    )
    _, found = findings(camora, *APP)
    assert found["limits"]["state"] == "failed"
    assert "send" in found["limits"]["text"]


def test_checks_of_plugins_take_their_place_and_cannot_hold_up_the_others(process: Run, folder: Path) -> None:
    (folder / "strange.py").write_text(PLUGIN)
    code, found = findings(process, *APP, CAMORA_PLUGINS="strange")
    assert code == 1
    names = list(found)
    assert names.index("raises") < names.index("blocks") < names.index("returns nothing") < names.index("tasks")
    assert names[-1] == "last"
    assert found["last"]["text"] == "looked at camora"
    assert found["raises"]["text"] == "RuntimeError: redis://me:***@host/0 went away"
    assert found["blocks"]["text"] == "not done after 0.05 s"
    assert "not a CheckResult" in found["returns nothing"]["text"]
    assert found["broker"]["state"] == "ok"


def test_the_text_shows_fixes_below_what_failed(camora: Run, folder: Path) -> None:
    (folder / "camora.toml").write_text('app = "taskz:app"\n')
    done = camora("doctor")
    assert done.returncode == 1
    assert "✗ app: " in done.stdout
    assert "\n  → write 'tasks' for 'taskz'" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 failed"
