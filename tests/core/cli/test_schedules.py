"""`camora schedules`: what is stored is listed, previewed, changed; each mistake is one line."""

from __future__ import annotations

import contextlib
import json
import runpy
import sqlite3
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from .conftest import Done, Run, forget

DECLARED = """
from camora import cron, every
from typing import Annotated
from camora import Secret

@app.task(name="log-in")
async def log_in(user: str, password: Annotated[str, Secret]) -> None: ...

app.schedule("nightly", add.s(1, 2), cron("30 2 * * *", tz="Europe/Paris"), group="jp", overlap="skip")
app.schedule("login", log_in.s("ada", "hunter2"), every(days=1))
"""
SYNC = """
import asyncio
from tasks import app

async def main():
    async with app:
        await app.schedules.sync()

asyncio.run(main())
"""
APP = ("--app", "tasks:app")


@pytest.fixture
def schedules(camora: Run, folder: Path) -> Run:
    with (folder / "tasks.py").open("a") as file:
        file.write(DECLARED)

    def run(*words: str) -> Done:
        return camora("schedules", *words, *APP)

    return run


@pytest.fixture
def deployed(schedules: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same, after what is declared was stored, as a scheduler does."""
    (folder / "deploy.py").write_text(SYNC)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        runpy.run_path(str(folder / "deploy.py"))
    forget(folder)
    return schedules


def keys(schedules: Run) -> list[str]:
    return [row["key"] for row in json.loads(schedules("list", "--json").stdout)["schedules"]]


def shown(schedules: Run, key: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(schedules("show", key, "--json").stdout)
    return facts


def test_what_is_declared_and_not_stored_yet_is_named(schedules: Run) -> None:
    done = schedules()
    assert "no schedules are stored" in done.stdout
    assert "declared, and stored when a scheduler starts: nightly, login" in done.stderr
    assert json.loads(schedules("--json").stdout) == {"schedules": [], "not_stored": ["nightly", "login"]}
    done = schedules("pause", "nightly")
    assert done.returncode == 3
    assert "declared, but not stored yet" in done.stderr


def test_stored_schedules_are_listed_and_shown(deployed: Run) -> None:
    assert keys(deployed) == ["login", "nightly"]
    assert json.loads(deployed("--group", "jp", "--json").stdout)["schedules"][0]["key"] == "nightly"
    page = deployed().stdout
    assert "cron('30 2 * * *', tz='Europe/Paris')" in page
    assert "never" in page
    assert page.splitlines()[0].split() == ["key", "when", "next", "last", "task", "group"]
    facts = shown(deployed, "nightly")
    assert (facts["group"], facts["overlap"], facts["catch_up"], facts["origin"]) == ("jp", "skip", "one", "code")
    assert facts["arguments"] == {"args": [], "kwargs": {"x": 1, "y": 2}}
    assert facts["next"] == facts["preview"][0]
    assert len(facts["preview"]) == 3


def test_what_is_overdue_is_remarked_upon(deployed: Run, folder: Path) -> None:
    assert "overdue" not in deployed().stderr
    with contextlib.closing(sqlite3.connect(folder / "camora.db")) as database, database:
        database.execute("UPDATE camora_schedules SET next = next - 400 * 86400 * 1000")
    assert "overdue: login, nightly; does a scheduler run?" in deployed().stderr
    deployed("pause", "login")
    assert "overdue: nightly;" in deployed().stderr


def test_secrets_among_the_arguments_are_masked(deployed: Run) -> None:
    for words in (["show", "login"], ["show", "login", "--json"], ["list", "--json"]):
        done = deployed(*words)
        assert "hunter2" not in done.stdout + done.stderr
    assert "ada" in deployed("show", "login").stdout


def test_a_preview_of_what_is_declared_or_only_thought_of(schedules: Run) -> None:
    said = json.loads(schedules("preview", "nightly", "--count", "400", "--json").stdout)["moments"]
    moments = [datetime.fromisoformat(moment) for moment in said]
    assert len(set(moments)) == 400
    assert {moment.utcoffset() for moment in moments} == {timedelta(0)}
    assert {moment.time() for moment in moments} == {time(0, 30), time(1, 30), time(1, 0)}
    page = schedules("preview", "--calendar", "hours=9 weekdays=mon", "--tz", "Asia/Tokyo", "-n", "2").stdout
    assert page.count("Mon ") == 4
    assert page.count("09:00:00 +0900") == 2
    done = schedules("preview", "--at", "2020-01-01T00:00Z")
    assert done.returncode == 0
    assert "never comes after now" in done.stderr


def test_pause_resume_and_remove(deployed: Run) -> None:
    assert deployed("pause", "nightly", "login").stdout == "nightly: paused\nlogin: paused\n"
    assert "paused" in deployed().stdout
    assert shown(deployed, "nightly")["paused"] is True
    assert deployed("resume", "nightly").stdout == "nightly: resumed\n"
    assert shown(deployed, "nightly")["paused"] is False
    done = deployed("remove", "login", "--yes")
    assert done.stdout == "login: removed\n"
    assert "still declared" in done.stderr
    assert keys(deployed) == ["nightly"]


def test_one_that_is_added_is_there_and_replaced_by_the_next_of_its_key(schedules: Run) -> None:
    added = ["add", "mine", "add", "1", "y=2"]
    done = schedules(*added, "--every", "1d", "--group", "own", "--catch-up", "all", "--queue", "slow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine: every(seconds=86400), next ")
    facts = shown(schedules, "mine")
    assert (facts["origin"], facts["group"], facts["catch_up"], facts["queue"]) == ("runtime", "own", "all", "slow")
    assert facts["arguments"]["kwargs"] == {"x": 1, "y": 2}
    again = json.loads(schedules(*added, "--at", "2131-05-01T09:00", "--tz", "Europe/Paris", "--json").stdout)
    assert datetime.fromisoformat(again["next"]) == datetime(2131, 5, 1, 7, tzinfo=UTC)
    assert shown(schedules, "mine")["queue"] == "sums"


def test_run_dispatches_one_job(deployed: Run, camora: Run) -> None:
    before = shown(deployed, "nightly")["next"]
    job = deployed("run", "nightly").stdout.strip()
    facts = json.loads(camora("job", "show", job, "--json", *APP).stdout)
    assert (facts["task"], facts["status"]) == ("add", "queued")
    assert shown(deployed, "nightly")["next"] == before


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["show", "nightyl"], 3, "there is no schedule 'nightyl'; did you mean 'nightly'?"),
        (["run", "nightyl"], 3, "did you mean 'nightly'?"),
        (["pause", "nightyl"], 3, "did you mean 'nightly'?"),
        (["preview", "nightyl"], 3, "did you mean 'nightly'?"),
        (["preview"], 2, "name a schedule, or say when"),
        (["preview", "nightly", "--every", "1m"], 2, "name a schedule, or say when"),
        (["preview", "nightly", "--count", "0"], 2, "--count 0: a whole number from 1"),
        (["remove", "nightly"], 2, "say --yes"),
        (["add", "nightly", "add", "1", "2", "--every", "1m"], 2, "is declared by this app"),
        (["add", "mine", "add", "1", "2"], 2, "Give one of --cron, --every, --calendar, --at, --trigger; found none"),
        (["add", "mine", "add", "1", "2", "--every", "1m", "--cron", "* * * * *"], 2, "found --cron and --every"),
        (["add", "mine", "add", "1", "2", "--every", "1x"], 2, "--every: '1x' is no duration"),
        (["add", "mine", "add", "1", "2", "--every", "1m", "--tz", "UTC"], 2, "--tz is for"),
        (["add", "mine", "add", "1", "2", "--cron", "99 * * * *"], 2, "--cron: '99 * * * *': bad minute field '99'"),
        (["add", "mine", "add", "1", "2", "--cron", "* * * * *", "--tz", "Europe/Pairs"], 2, "Europe/Paris"),
        (["add", "mine", "add", "1", "2", "--calendar", "hour=9"], 2, "did you mean 'hours'?"),
        (["add", "mine", "add", "1", "2", "--calendar", "hours=99"], 2, "--calendar: hours: 99 is not one of 0 to 23"),
        (["add", "mine", "add", "1", "2", "--calendar", "9"], 2, "write name=value,value"),
        (["add", "mine", "add", "1", "2", "--at", "tomorrow"], 2, "--at: 'tomorrow' is no moment"),
        (["add", "mine", "add", "1", "2", "--at", "2131-05-01T09:00"], 2, "in which zone?"),
        (["add", "mine", "add", "1", "2", "--at", "2020-05-01T09:00Z"], 2, "never comes after now"),
        (["add", "mine", "add", "1", "2", "--trigger", '{"use": "evry"}'], 2, "Did you mean 'every'?"),
        (["add", "mine", "add", "1", "2", "--trigger", "evry"], 2, "--trigger: 'evry' is no JSON"),
        (["add", "mine", "add", "1", "--every", "1m"], 2, "y: is missing"),
        (["add", "mine", "ad", "1", "--every", "1m"], 2, "Did you mean 'add'?"),
        (["add", "mine", "add", "1", "2", "--every", "1m", "--catch-up", "most"], 2, "one of one, all, none"),
        (["add", "mine", "add", "1", "2", "--every", "1m", "--expires", "soon"], 2, "--expires: 'soon' is no duration"),
        (["add", "bad key", "add", "1", "2", "--every", "1m"], 2, "bad key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_one_line(deployed: Run, words: list[str], code: int, text: str) -> None:
    done = deployed(*words)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert keys(deployed) == ["login", "nightly"]


def test_a_scheduler_of_a_broker_that_nobody_shares_is_refused(camora: Run, folder: Path) -> None:
    source = (folder / "tasks.py").read_text().replace("sqlite:///camora.db", "memory://")
    (folder / "alone.py").write_text(source)
    done = camora("scheduler", "alone:app")
    assert done.returncode == 2
    assert "camora worker --scheduler" in done.stderr
