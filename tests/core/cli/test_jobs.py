"""Dispatching, looking at, cancelling, requeueing and purging jobs, in processes of their own."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests import forked

from .conftest import Run, forget

APP = ("--app", "tasks:app")


def dispatched(camora: Run, *arguments: str) -> str:
    done = camora("dispatch", *arguments, *APP)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def worked(folder: Path) -> None:
    """Run what is due."""
    sys.path.insert(0, str(folder))
    try:
        app = importlib.import_module("tasks").app
        asyncio.run(app.start(burst=True))
    finally:
        sys.path.remove(str(folder))
        forget(folder)


def data(camora: Run, *arguments: str) -> Any:
    done = camora(*arguments, "--json", *APP)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "arguments", [["x=1", "y=2"], ["1", "2"], ["1", "y=2"], ['{"x": 1, "y": 2}'], ["[1, 2]"]], ids=" ".join
)
def test_arguments_are_given_by_name_by_position_or_as_json(camora: Run, arguments: list[str]) -> None:
    job = dispatched(camora, "add", *arguments)
    assert data(camora, "job", "show", job)["arguments"] == {"args": [], "kwargs": {"x": 1, "y": 2}}


def test_a_text_parameter_takes_what_is_written(camora: Run) -> None:
    job = dispatched(camora, "fail", "to=007")
    assert data(camora, "job", "show", job)["arguments"]["kwargs"] == {"to": "007"}


def test_options_reach_the_broker(camora: Run) -> None:
    job = dispatched(camora, "add", "1", "2", "--delay", "1h", "--queue", "slow", "--job-id", "mine")
    assert job == "mine"
    shown = data(camora, "job", "show", job)
    assert (shown["queue"], shown["status"]) == ("slow", "scheduled")
    assert dispatched(camora, "add", "1", "2", "--key", "k", "--delay", "1h") == dispatched(
        camora, "add", "1", "2", "--key", "k"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ad", "1"], "the app has no task 'ad'. Did you mean 'add'?"),
        (["nonsense"], "It knows add, again, fail."),
        (["add", "1"], "add: y: is missing"),
        (["add", "1", "y=two"], "add: y: expected int, got 'two'"),
        (["add", "1", "2", "--delay", "3x"], "--delay: '3x' is no duration"),
        (["add", "1", "2", "--eta", "tomorrow"], "--eta 'tomorrow': is no moment"),
        (["add", "1", "2", "--eta", "2031-01-01T10:00:00"], "in which zone?"),
        (["add", "1", "2", "--priority", "10"], "priority=10: a whole number from 0 to 9"),
        (["add", "[1, 2"], "begins like JSON and is none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_dispatch_nothing(camora: Run, arguments: list[str], text: str) -> None:
    done = camora("dispatch", *arguments, *APP)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert all(row["ready"] == row["scheduled"] == 0 for row in data(camora, "queues")["queues"])


def test_a_broker_of_one_process_is_refused(camora: Run, folder: Path) -> None:
    (folder / "lonely.py").write_text((folder / "tasks.py").read_text().replace("sqlite:///camora.db", "memory://"))
    done = camora("dispatch", "add", "1", "2", "--app", "lonely:app")
    assert done.returncode == 2
    assert "lives in one process" in done.stderr


def test_a_job_from_dispatch_to_its_end(camora: Run, folder: Path) -> None:
    job = dispatched(camora, "add", "20", "22")
    assert data(camora, "why", job)["reasons"][0]["code"] in {"ready", "no-worker"}
    worked(folder)
    waited = camora("dispatch", "add", "20", "22", "--job-id", job, "--wait", *APP)
    assert (waited.returncode, waited.stdout.strip()) == (0, "42"), waited.stderr
    shown = data(camora, "job", "show", job)
    assert (shown["status"], shown["attempts"], shown["task"]) == ("succeeded", 1, "add")
    assert "succeeded" in camora("job", "show", job, *APP).stdout
    assert "it has ended: succeeded" in camora("why", job, *APP).stdout
    assert camora("job", "cancel", job, *APP).stdout == f"{job}: too late: it has ended already\n"


def test_waiting_for_a_job_that_failed_or_does_not_come(camora: Run, folder: Path) -> None:
    job = dispatched(camora, "fail", "to=x")
    late = camora("dispatch", "fail", "to=x", "--job-id", job, "--wait", "--timeout", "0.05", *APP)
    assert late.returncode == 1
    assert "is not finished after 0.05 s" in late.stderr
    worked(folder)
    failed = camora("dispatch", "fail", "to=x", "--job-id", job, "--wait", "--json", *APP)
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["status"] == "failed"
    assert "no such host: x" in json.loads(failed.stdout)["error"]


def test_cancelling(camora: Run) -> None:
    job = dispatched(camora, "add", "1", "2", "--delay", "1h")
    done = camora("job", "cancel", job, "nonsense", *APP)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        f"{job}: removed: it was waiting, and will never run",
        "nonsense: there is no such job",
    ]
    assert data(camora, "job", "show", job)["status"] == "cancelled"


def test_signalling(camora: Run, folder: Path) -> None:
    job = dispatched(camora, "add", "1", "2", "--delay", "1h")
    done = camora("job", "signal", job, "approved", '{"by": "ada"}', *APP)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout
        == f"{job}: 'approved' was sent, and waits there until the job waits for it, or looks again by itself\n"
    )
    assert data(camora, "job", "show", job)["status"] == "scheduled", "it waits for something else"
    assert data(camora, "job", "signal", job, "approved")["posted"] is True

    over = dispatched(camora, "add", "1", "2")
    worked(folder)
    done = camora("job", "signal", over, "approved", *APP)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"job {over} has ended (succeeded): it waits for nothing, and nothing was sent" in done.stderr

    done = camora("job", "signal", "nonsense", "approved", *APP)
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing is known of job nonsense" in done.stderr


def test_what_is_not_there_exits_with_3(camora: Run) -> None:
    for words in (["job", "show"], ["why"], ["dead", "show"], ["dead", "requeue"], ["dead", "purge", "--yes"]):
        done = camora(*words, "nonsense", *APP)
        assert done.returncode == 3, (words, done.stderr)
    assert data(camora, "job", "show", "nonsense")["status"] == "unknown"
    assert data(camora, "why", "nonsense")["reasons"][0]["code"] == "unknown"


def test_why_a_job_waits(camora: Run) -> None:
    job = dispatched(camora, "again", "to=x", "--delay", "1h")
    assert data(camora, "why", job)["reasons"][0]["code"] == "scheduled"
    camora("queues", "pause", "mail", *APP)
    codes = [reason["code"] for reason in data(camora, "why", job)["reasons"]]
    assert codes[:2] == ["paused", "scheduled"]
    assert "→ camora queues resume mail" in camora("why", job, *APP).stdout


def test_why_a_job_waits_for_its_retry(camora: Run, folder: Path) -> None:
    job = dispatched(camora, "again", "to=x")
    worked(folder)
    reason = data(camora, "why", job)["reasons"][0]
    assert reason["code"] == "retry"
    assert reason["text"].startswith("it waits for attempt 2")
    assert "OSError: not now" in reason["text"]


def test_dead_letters_from_listing_to_the_end(camora: Run, folder: Path) -> None:
    assert camora("dead", *APP).stdout == "no dead letters\n"
    jobs = [dispatched(camora, "fail", f"to={name}") for name in ("a", "b", "c")]
    worked(folder)
    listed = data(camora, "dead")["letters"]
    assert [letter["id"] for letter in listed] == jobs
    assert listed[0]["error"] == {"type": "OSError", "text": "no such host: a"}
    assert listed[0]["arguments"]["kwargs"] == {"to": "a"}
    assert datetime.fromisoformat(listed[0]["died"]).tzinfo is not None
    assert data(camora, "dead", "list", "--limit", "1")["more"] is True
    assert data(camora, "dead", "--queue", "sums")["letters"] == []
    table = camora("dead", *APP).stdout
    assert "fail(to='a')" in table and "OSError: no such host: a" in table
    shown = camora("dead", "show", jobs[0], *APP).stdout
    assert 'raise OSError(f"no such host: {to}")' in shown
    assert f"camora dead requeue {jobs[0]}" in shown

    assert camora("dead", "requeue", jobs[0], *APP).stdout == "1 requeued\n"
    assert data(camora, "job", "show", jobs[0])["status"] == "queued"
    assert camora("dead", "requeue", "--all", *APP).returncode == 2  # nobody can answer
    assert camora("dead", "requeue", "--all", "--queue", "mail", "--yes", *APP).stdout == "2 requeued\n"
    worked(folder)
    assert camora("dead", "purge", jobs[0], "--yes", *APP).stdout == "1 deleted\n"
    assert camora("dead", "purge", "--all", "--queue", "sums", "--yes", *APP).stdout == "0 deleted\n"
    for words in ([], ["--queue", "mail"], [jobs[1], "--all"], [jobs[1], "--queue", "mail"]):
        refused = camora("dead", "purge", *words, "--yes", *APP)
        assert refused.returncode == 2
        assert "camora dead purge: name ids, or say --all, or --all --queue NAME" in refused.stderr
    assert camora("dead", "purge", "--all", "--yes", *APP).stdout == "2 deleted\n"
    assert camora("dead", "requeue", *APP).returncode == 2


def test_queues(camora: Run) -> None:
    dispatched(camora, "add", "1", "2")
    dispatched(camora, "add", "1", "2", "--delay", "1h")
    assert camora("queues", "pause", "sums", "mail", *APP).stdout == "sums: paused\nmail: paused\n"
    found = {row["queue"]: row for row in data(camora, "queues")["queues"]}
    assert list(found) == ["default", "mail", "sums"]
    assert found["sums"] == {"queue": "sums", "ready": 1, "scheduled": 1, "leased": 0, "dead": 0, "paused": True}
    assert "paused" in camora("queues", *APP).stdout
    assert camora("queues", "resume", "mail", *APP).stdout == "mail: resumed\n"
    assert not {row["queue"]: row for row in data(camora, "queues")["queues"]}["mail"]["paused"]
    assert camora("queues", "purge", "sums", *APP).returncode == 2
    assert camora("queues", "purge", "sums", "--yes", *APP).stdout == "sums: 2 deleted\n"


def test_pruning_where_it_is_not_possible_says_so(camora: Run) -> None:
    done = camora("job", "prune", "--older-than", "1x", "--yes", *APP)
    assert done.returncode == 2
    assert "--older-than: '1x' is no duration" in done.stderr


def test_many_are_dispatched_from_a_file(camora: Run, folder: Path) -> None:
    lines = [f'{{"x": {number}, "y": 1}}' if number % 2 else f"[{number}, 1]" for number in range(1200)]
    (folder / "rows.jsonl").write_text("\n".join([*lines, "", ""]))
    done = camora("dispatch", "add", "--from", "rows.jsonl", "--queue", "bulk", *APP)
    assert (done.returncode, done.stdout) == (0, "1200 dispatched\n"), done.stderr
    found = {row["queue"]: row["ready"] for row in data(camora, "queues")["queues"]}
    assert found["bulk"] == 1200
    assert data(camora, "dispatch", "add", "--from", "rows.jsonl") == {"dispatched": 1200, "task": "add"}


def test_they_come_from_stdin_too(folder: Path) -> None:
    command = [sys.executable, "-m", "camora", "dispatch", "add", "--from", "-", "--json", *APP]
    pipe = subprocess.PIPE
    with forked.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as dispatching:
        out, err = dispatching.communicate('{"x": 1, "y": 2}\n[3, 4]\n', timeout=60)
    assert json.loads(out) == {"dispatched": 2, "task": "add"}, err


def test_they_come_from_a_pipe_too(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    command = [sys.executable, "-m", "camora", "dispatch", "add", "--from", "pipe", "--json", *APP]
    with forked.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as dispatching:
        (folder / "pipe").write_text('{"x": 1, "y": 2}\n[3, 4]\n')
        out, err = dispatching.communicate(timeout=60)
    assert json.loads(out) == {"dispatched": 2, "task": "add"}, err


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("[1, 2]\n[1, 2\n", "line 2: is no JSON"),
        ("[1, 2]\n\n7\n", "line 3: write an object"),
        ('[1, 2]\n{"x": 1}\n', "line 2: add: y: is missing"),
        ('{"x": 1, "y": "two"}', "line 1: add: y: expected int, got 'two'"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_dispatched(camora: Run, folder: Path, lines: str, text: str) -> None:
    (folder / "rows.jsonl").write_text(lines)
    done = camora("dispatch", "add", "--from", "rows.jsonl", *APP)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "nothing was dispatched" in done.stderr
    assert all(row["ready"] == 0 for row in data(camora, "queues")["queues"])


def test_what_does_not_go_with_a_file_is_refused(camora: Run, folder: Path) -> None:
    assert "cannot be read: No such file" in camora("dispatch", "add", "--from", "nowhere", *APP).stderr
    for words in (["1"], ["--wait"], ["--key", "k"], ["--job-id", "j"]):
        assert camora("dispatch", "add", "--from", "rows.jsonl", *words, *APP).returncode == 2


def test_arguments_that_are_secrets_are_shown_to_nobody(camora: Run, folder: Path) -> None:
    (folder / "tasks.py").write_text(
        "from typing import Annotated\nfrom camora import Camora, Secret\n"
        'app = Camora("sqlite:///camora.db")\n'
        '@app.task(name="log_in")\ndef log_in(user: str, password: Annotated[str, Secret]) -> None:\n'
        '    raise PermissionError(f"{user} may not, with {password}")\n'
    )
    job = dispatched(camora, "log_in", "ada", "password=hunter2")
    shown = data(camora, "job", "show", job)
    assert shown["arguments"]["kwargs"] == {"user": "ada", "password": "***"}
    worked(folder)
    for words in (["dead"], ["dead", "show", job], ["job", "show", job], ["why", job]):
        for more in ([], ["--json"]):
            said = camora(*words, *more, *APP, COLUMNS="300").stdout
            assert "hunter2" not in said, words
            assert "ada may not" in said, words


def test_a_result_is_printed_as_json_whatever_its_type(camora: Run, folder: Path) -> None:
    (folder / "tasks.py").write_text(
        "from dataclasses import dataclass\nfrom datetime import UTC, datetime\nfrom camora import Camora\n"
        'app = Camora("sqlite:///camora.db")\n'
        "@dataclass\nclass Point:\n    x: int\n    at: datetime\n"
        '@app.task(name="point")\ndef point(x: int) -> Point:\n    return Point(x, datetime(2031, 5, 1, tzinfo=UTC))\n'
    )
    job = dispatched(camora, "point", "7")
    worked(folder)
    answer = data(camora, "dispatch", "point", "7", "--job-id", job, "--wait")
    assert answer["result"] == {"x": 7, "at": "2031-05-01T00:00:00Z"}


@pytest.mark.parametrize(
    "words",
    [
        ["queues", "pause", "mial", "--unchecked"],
        ["queues", "resume", "mial"],
        ["queues", "purge", "mial", "--yes", "--unchecked"],
        ["dead", "--queue", "mial"],
        ["dispatch", "fail", "to=x", "--queue", "mial"],
    ],
    ids=" ".join,
)
def test_a_misspelt_queue_is_remarked(camora: Run, words: list[str]) -> None:
    done = camora(*words, *APP)
    assert done.returncode == 0
    assert "nothing is known of a queue 'mial'; did you mean 'mail'?" in done.stderr
    assert camora(*(word.replace("mial", "mail") for word in words), *APP).stderr == ""


@pytest.mark.parametrize("words", [["pause", "mial"], ["purge", "mial", "--yes"]], ids=" ".join)
def test_a_misspelt_queue_is_neither_paused_nor_purged(camora: Run, words: list[str]) -> None:
    done = camora("queues", *words, *APP)
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing is known of a queue 'mial'; did you mean 'mail'?" in done.stderr
    assert "paused" not in camora("queues", *APP).stdout


def test_dead_letters_fit_a_narrow_terminal(camora: Run, folder: Path) -> None:
    job = dispatched(camora, "fail", "to=x")
    worked(folder)
    lines = camora("dead", *APP, COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith(f"{job}   fail(to='x')")
    assert lines[3].startswith("mail, ")
    assert "OSError: no such host: x" in lines[3]


def test_who_cannot_be_waited_for_is_dispatched_all_the_same_and_named(folder: Path) -> None:
    (folder / "mute.py").write_text(
        'from camora import Camora\napp = Camora("sqlite:///mute.db", results=False)\n\n'
        '@app.task(name="hush")\nasync def hush() -> None: ...\n'
    )
    command = [sys.executable, "-m", "camora", "dispatch", "hush", "--wait", "--app", "mute:app", "--job-id", "quiet"]
    done = forked.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "camora: quiet is dispatched, and nobody can wait for it: this app keeps no results; say where: "
        "Camora(results=…), or url in [results] of camora.toml\n"
    )
