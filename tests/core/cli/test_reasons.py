"""What `camora why` concludes from what is known."""

from __future__ import annotations

from typing import Any

import pytest
from camora.cli.facts import JobFacts
from camora.cli.moments import relative, span
from camora.cli.reasons import reasons
from camora.interfaces import Limit, LimitUse, QueuedJob, RunningJob, WorkerInfo
from camora.message import Message
from camora.outcome import DeadLetter, ErrorInfo, JobRecord, Status

NOW = 1_900_000_000_000
ERROR = ErrorInfo(type="OSError", text="no such host\nmore")


def queued(**given: Any) -> QueuedJob:
    return QueuedJob(**{"id": "j1", "task": "send", "queue": "mail", "state": "ready", **given})


def message(**given: Any) -> Message:
    return Message(**{"id": "j1", "task": "send", "queue": "mail", **given})


def worker(**given: Any) -> WorkerInfo:
    return WorkerInfo(**{"name": "w1", "queues": ("mail",), "concurrency": 10, "seen": NOW, **given})


def facts(**given: Any) -> JobFacts:
    return JobFacts(
        **{"id": "j1", "now": NOW, "queued": queued(), "message": message(), "workers": [worker()], **given}
    )


def codes(**given: Any) -> list[str]:
    return [reason.code for reason in reasons(facts(**given))]


def only(**given: Any) -> Any:
    [reason] = reasons(facts(**given))
    return reason


def test_finished() -> None:
    record = JobRecord(id="j1", status=Status.SUCCEEDED, finished=NOW - 5_000)
    assert only(queued=None, record=record).text == "it has ended: succeeded 5 s ago (2030-03-17 17:46:35 UTC)"


def test_failed_with_its_error_and_the_way_back() -> None:
    record = JobRecord(id="j1", status=Status.FAILED, finished=NOW, attempts=3, error=ERROR)
    reason = only(queued=None, record=record, letter=DeadLetter(id="j1", queue="mail"))
    assert reason.text.endswith("after 3 attempts: OSError: no such host")
    assert reason.fix == "camora dead requeue j1"


def test_dead_without_a_record() -> None:
    reason = only(queued=queued(state="dead"), letter=DeadLetter(id="j1", queue="mail", reason="poison", died=NOW))
    assert reason.code == "dead"
    assert "(poison)" in reason.text
    assert "camora dead requeue j1" in reason.fix


def test_unknown_says_whether_results_are_kept() -> None:
    assert "keeps no results" not in only(queued=None).text
    assert "keeps no results" in only(queued=None, keeps_results=False).text


def test_a_record_without_a_message() -> None:
    assert codes(queued=None, record=JobRecord(id="j1", status=Status.RUNNING)) == ["vanished"]


def test_due_later_by_its_dispatch() -> None:
    assert only(queued=queued(state="scheduled", due=NOW + 3_600_000)).text == (
        "it is due in 1 h (2030-03-17 18:46:40 UTC)"
    )


def test_waiting_for_a_retry_names_the_error_before() -> None:
    reason = only(
        queued=queued(state="scheduled", due=NOW + 60_000),
        message=message(attempt=3),
        record=JobRecord(id="j1", status=Status.RETRYING, error=ERROR),
    )
    assert reason.text.startswith("it waits for attempt 3 after OSError: no such host; due in 1 min")


def test_given_back_by_workers() -> None:
    waiting = queued(state="scheduled", due=NOW + 60_000)
    assert codes(queued=waiting, message=message(misses=2)) == ["given-back"]
    assert codes(queued=waiting, message=message(misses=2), task_known=False) == ["given-back", "unknown-task"]


def test_paused_with_its_fix() -> None:
    assert only(paused=True).fix == "camora queues resume mail"


def test_expired_comes_before_everything_else() -> None:
    assert codes(message=message(expires=NOW - 1), paused=True) == ["expired", "paused"]
    assert codes(message=message(expires=NOW + 1)) == ["ready"]


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([], ["no-worker"]),
        ([worker(queues=("other",))], ["no-worker"]),
        ([worker(kind="scheduler")], ["no-worker"]),
        ([worker(state="quiet"), worker(name="w2", state="stopping")], ["no-worker"]),
        ([worker(state="quiet"), worker(name="w2")], ["ready"]),
        ([worker(busy=10)], ["busy"]),
        ([worker(busy=10), worker(name="w2", busy=9)], ["ready"]),
        (None, ["ready"]),
    ],
)
def test_workers_of_its_queue(workers: list[WorkerInfo] | None, expected: list[str]) -> None:
    assert codes(workers=workers) == expected


def test_held_by_a_worker() -> None:
    leased = queued(state="leased", worker="w1", deliveries=2)
    running = RunningJob(id="j1", task="send", queue="mail", since=NOW - 65_000)
    assert only(queued=leased, workers=[worker(running=(running,))]).text == "it is running in worker w1 for 1 min 5 s"
    assert codes(queued=leased) == ["leased"]
    assert "taken 2 times" in only(queued=leased).text
    assert codes(queued=leased, workers=[worker(seen=NOW - 60_000)]) == ["holder-silent"]
    assert codes(queued=leased, workers=[]) == ["holder-silent"]
    assert codes(queued=leased, workers=None) == ["leased"]


def test_limits_reached() -> None:
    slots = (Limit(name="slots:send:ada", most=2), LimitUse(name="slots:send:ada", used=2, holders=("a:w:1", "b:w:2")))
    rate = (Limit(name="queue:mail", most=10, per=60), LimitUse(name="queue:mail", used=10))
    room = (Limit(name="rate:send", most=10, per=60), LimitUse(name="rate:send", used=9))
    texts = [reason.text for reason in reasons(facts(limits=[slots, rate, room]))]
    assert texts == ["all 2 slots of send:ada are taken, by a:w, b:w", "the rate of queue mail is used up: 10 in 1 min"]
    leased = queued(state="leased", worker="w1")
    assert codes(queued=leased, limits=[slots]) == ["leased", "limit"]
    mine = (slots[0], LimitUse(name="slots:send:ada", used=2, holders=("j1:w", "b:w")))
    assert codes(queued=leased, limits=[mine]) == ["leased"]


def test_behind_others_and_all_busy() -> None:
    assert codes(ahead=12, workers=[worker(busy=10)]) == ["behind", "busy"]
    assert "behind 12 others" in reasons(facts(ahead=12))[0].text


def test_durations_and_moments() -> None:
    assert [span(seconds) for seconds in (0.25, 1, 59, 60, 3661, 86400, 90_000, 3600)] == [
        *("0.25 s", "1 s", "59 s", "1 min", "1 h 1 min", "1 d", "1 d 1 h", "1 h"),
    ]
    assert relative(NOW + 61_000, NOW) == "in 1 min 1 s"
    assert relative(NOW - 61_000, NOW) == "1 min 1 s ago"
