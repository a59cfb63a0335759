"""Events as log lines, and log lines as JSON."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from camora import plugins
from camora.builtin.observers.logging import LEVELS, line_of
from camora.errors import ConfigurationError, SettingsError
from camora.interfaces.observer import (
    Event,
    JobDeadLettered,
    JobDispatched,
    JobFailed,
    JobReceived,
    JobRetried,
    JobStarted,
    JobSucceeded,
    QueuePaused,
    ScheduleFired,
    WorkerStarted,
    WorkerStopping,
)
from camora.observers import JsonFormatter, LoggingObserver, MemoryObserver

JOB: dict[str, Any] = {"job_id": "j1", "task": "shop:add", "queue": "mail", "attempt": 2, "worker": "w"}
NOON = 1_700_000_000_123


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    logger = logging.getLogger("test.events")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("event", "level", "line", "fields"),
    [
        (
            JobSucceeded(at=NOON, **JOB, duration=0.0123456789),
            "INFO",
            "job.succeeded job_id=j1 task=shop:add queue=mail attempt=2 worker=w duration=0.012346",
            {"event": "job.succeeded", "duration": 0.012346, **JOB},
        ),
        (
            JobDispatched(at=NOON, job_id="j1", task="shop:add", queue="mail"),
            "DEBUG",
            "job.dispatched job_id=j1 task=shop:add queue=mail",
            {"event": "job.dispatched", "job_id": "j1"},
        ),
        (
            JobRetried(at=NOON, job_id="j1", attempt=2, delay=30.0, error='OSError: no "route"\nto host \x1b[31m'),
            "WARNING",
            r'job.retried job_id=j1 attempt=2 duration=0 delay=30 error="OSError: no \"route\"\nto host \u001b[31m"',
            {"delay": 30.0, "error": 'OSError: no "route"\nto host \x1b[31m'},
        ),
        (JobStarted(at=NOON, **JOB, waited=0.0), "DEBUG", None, {"waited": 0.0}),
        (
            JobReceived(at=NOON, job_id="j", sequence_number=7),
            "DEBUG",
            "job.received job_id=j sequence_number=7 deliveries=1",
            {"sequence_number": 7},
        ),
        (JobReceived(at=NOON, job_id="j", deliveries=3), "DEBUG", "job.received job_id=j deliveries=3", {}),
        (JobFailed(at=NOON, **JOB, error="E: x"), "ERROR", None, {"error": "E: x", "duration": 0.0}),
        (JobDeadLettered(at=NOON, job_id="j", reason="stale"), "ERROR", "job.dead_lettered job_id=j reason=stale", {}),
        (
            WorkerStarted(at=NOON, worker="w", queues=("a", "b c")),
            "DEBUG",
            'worker.started worker=w queues=a,"b c"',
            {"queues": ["a", "b c"]},
        ),
        (WorkerStopping(at=NOON, worker="w", busy=0), "DEBUG", "worker.stopping worker=w busy=0", {"busy": 0}),
        (QueuePaused(at=NOON, queue="mail"), "INFO", "queue.paused queue=mail", {"queue": "mail"}),
        (
            ScheduleFired(at=NOON, key="k", tick=5),
            "DEBUG",
            "schedule.fired key=k tick=1970-01-01T00:00:00.005Z",
            {"tick": 5},
        ),
    ],
    ids=lambda value: getattr(value, "kind", None),
)  # fmt: skip
async def test_an_event_is_one_line_with_fields(
    kept: Kept, event: Event, level: str, line: str | None, fields: dict[str, Any]
) -> None:
    await LoggingObserver("test.events").observe([event])
    [record] = kept.records
    assert record.levelname == level
    assert record.created * 1000 == pytest.approx(NOON, abs=0.01)
    assert record.msecs == pytest.approx(123)
    message = record.getMessage()
    assert line is None or message == line
    assert message.isprintable()
    for name, value in fields.items():
        assert getattr(record, name) == value


def test_every_kind_has_a_sensible_level() -> None:
    from camora.builtin.observers.settings import _kinds

    known = {kind.kind for kind in _kinds(Event)}
    assert set(LEVELS) <= known


async def test_levels_are_said_by_kind_and_pattern(kept: Kept) -> None:
    observer = LoggingObserver(
        logging.getLogger("test.events"),
        levels={"job.*": "debug", "job.failed": "CRITICAL", "worker.*": "off"},
    )
    await observer.observe(
        [
            JobSucceeded(at=1, job_id="a"),
            JobFailed(at=2, job_id="b"),
            WorkerStopping(at=3, worker="w"),
            QueuePaused(at=4, queue="q"),
        ]
    )
    assert [record.levelname for record in kept.records] == ["DEBUG", "CRITICAL", "INFO"]


async def test_what_the_logger_does_not_want_is_not_made(kept: Kept) -> None:
    logging.getLogger("test.events").setLevel(logging.ERROR)
    await LoggingObserver("test.events").observe([JobSucceeded(at=1, job_id="a"), JobFailed(at=1, job_id="a")])
    assert [record.levelname for record in kept.records] == ["ERROR"]


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        ({"job.suceeded": "info"}, "there is no such event: did you mean 'job.succeeded'?"),
        ({"zzz.*": "info"}, "known are job.cancelled"),
        ({"job.failed": "loud"}, "expected one of off, debug"),
    ],
)
def test_wrong_levels_are_named(levels: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        LoggingObserver(levels=levels)
    assert text in str(refused.value)
    with pytest.raises(SettingsError) as refused:
        plugins.load().provider("camora_observers", "logging").make(settings={"levels": levels})
    assert text in str(refused.value)


async def test_settings_turn_it_on(kept: Kept) -> None:
    settings = {"logger": "test.events", "levels": {"job.failed": "info"}}
    observer = plugins.load().provider("camora_observers", "logging").make(settings=settings)
    assert observer.name == "logging"
    await observer.observe([JobFailed(at=1, job_id="a")])
    assert kept.records[0].levelname == "INFO"


async def test_an_event_of_a_plugin_may_have_any_field(kept: Kept) -> None:
    class Odd(Event, frozen=True, kw_only=True):
        name: str
        module: int

    await LoggingObserver("test.events").observe([Odd(at=1, name="x", module=2)])
    assert (vars(kept.records[0])["name_"], vars(kept.records[0])["module_"]) == ("x", 2)


def test_a_line_is_one_line() -> None:
    assert line_of({"event": "e", "error": "a\nb\u2028c", "empty": ""}) == 'e error="a\\nb\\u2028c" empty=""'


def _formatted(**record: Any) -> dict[str, Any]:
    line = JsonFormatter().format(logging.makeLogRecord({"name": "n", "levelname": "INFO", **record}))
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    return found


def test_a_record_is_one_json_object() -> None:
    found = _formatted(msg="a %s\n%d", args=("b", 5), created=1_700_000_000.123, job_id="j", duration=0.5, queues=["a"])
    assert found == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "INFO",
        "logger": "n",
        "message": "a b\n5",
        "job_id": "j",
        "duration": 0.5,
        "queues": ["a"],
    }


class Unshowable:
    def __repr__(self) -> str:
        raise LookupError("never")

    __str__ = __repr__


def _endless() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (b"x", "b'x'"),
        ({1: {2: 3}}, {"1": {"2": 3}}),
        ({"a"}, ["a"]),
        ((1, (2,)), [1, [2]]),
        ("\ud800", "?"),
        (Unshowable(), "<Unshowable that cannot be shown>"),
        ({Unshowable(): 1}, {"<Unshowable that cannot be shown>": 1}),
        (2**70, 2**70),
        (ValueError("x"), "x"),
    ],
    ids=range(11),
)
def test_any_extra_is_written(value: Any, shown: Any) -> None:
    assert _formatted(msg="m", value=value)["value"] == shown


def test_an_extra_that_holds_itself_comes_to_an_end() -> None:
    assert _formatted(msg="m", value=_endless())["value"]


def test_an_extra_cannot_take_the_place_of_what_is_always_there() -> None:
    found = _formatted(msg="m", time="t", level="l", logger="x", exception="e", stack="s")
    assert (found["level"], found["logger"], found["message"]) == ("INFO", "n", "m")
    assert [found[f"{name}_"] for name in ("time", "level", "logger", "exception", "stack")] == [
        "t",
        "l",
        "x",
        "e",
        "s",
    ]


def test_a_message_that_cannot_be_made_is_written_all_the_same() -> None:
    assert _formatted(msg="%d", args=("x",))["message"] == "'%d' ('x',)"
    assert "cannot be shown" in _formatted(msg="%s", args=(Unshowable(),))["message"]


def test_an_exception_is_written_with_its_cause() -> None:
    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer\nline") from error

    try:
        fail()
    except ValueError:
        found = _formatted(msg="m", exc_info=sys.exc_info())
    assert found["exception"]["type"] == "ValueError"
    assert found["exception"]["text"] == "outer\nline"
    assert "KeyError: 'inner'" in found["exception"]["traceback"]
    assert "exc_info" not in found


def test_an_exception_that_cannot_be_shown_breaks_nothing() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise LookupError("never")

    try:
        raise Broken
    except Broken:
        found = _formatted(msg="m", exc_info=sys.exc_info(), stack_info="stack")
    assert found["exception"]["type"].endswith("Broken")
    assert found["stack"] == "stack"


def test_it_is_a_formatter_like_any() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("test.own")
    logger.addHandler(handler)
    logger.warning("hello %s", "you", extra={"user": "ü"})
    found = json.loads(stream.getvalue())
    assert (found["message"], found["user"], found["logger"]) == ("hello you", "ü", "test.own")


PROGRAM = textwrap.dedent(
    """
    import logging, sys
    from camora.observers import configure_logging
    for level, shape in [("info", "text"), (sys.argv[1], sys.argv[2])]:
        configure_logging(level, shape)
    log = logging.getLogger("camora.x")
    log.debug("quiet")
    log.warning("one\\ntwo \\x1b[31m", extra={"job_id": "j"})
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("three")
    """
)


def _stderr(*arguments: str, before: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stderr.splitlines()


def test_a_program_logs_json_lines() -> None:
    found = [json.loads(line) for line in _stderr("warning", "json")]
    assert [one["message"] for one in found] == ["one\ntwo \x1b[31m", "three"]
    assert found[0]["job_id"] == "j"
    assert found[1]["exception"]["type"] == "ZeroDivisionError"


def test_a_program_logs_text_that_nobody_can_forge() -> None:
    lines = _stderr("debug", "text")
    assert lines[0].endswith("DEBUG   quiet")
    assert lines[1].endswith("WARNING one")
    assert lines[2] == "    two \\x1b[31m"
    assert lines[3].endswith("ERROR   three")
    assert all(line.startswith("    ") for line in lines[4:])
    assert lines[-1].strip() == "ZeroDivisionError: division by zero"


def test_a_program_that_logs_its_own_way_is_left_alone() -> None:
    lines = _stderr("debug", "json", before="import logging; logging.basicConfig(format='mine %(message)s')\n")
    assert lines[0] == "mine one"


def test_a_wrong_level_or_format_is_named() -> None:
    from camora.observers import configure_logging

    with pytest.raises(ConfigurationError, match="one of debug"):
        configure_logging("loud")
    with pytest.raises(ConfigurationError, match="one of text, json"):
        configure_logging("info", "xml")  # type: ignore[arg-type]


async def test_the_memory_observer_keeps_what_it_sees() -> None:
    observer = MemoryObserver(most=2)
    await observer.observe([JobFailed(at=1, job_id="a"), JobSucceeded(at=2, job_id="b"), QueuePaused(at=3, queue="q")])
    assert observer.kinds == ["job.succeeded", "queue.paused"]
    assert [event.job_id for event in observer.of(JobSucceeded)] == ["b"]
    with pytest.raises(TimeoutError, match="queue.paused"):
        observer.wait_for(lambda events: len(events) > 2, timeout=0)
    observer.clear()
    assert observer.events == ()
