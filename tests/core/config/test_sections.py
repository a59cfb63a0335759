"""What each section says, as the values that are made of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from camora.builtin.triggers import Calendar, Cron, Every, Once
from camora.config import Configuration
from camora.retry import RetryPolicy
from camora.units import Rate

Read = Callable[..., Configuration]
Problems = Callable[..., list[str]]


def test_an_empty_file_means_the_defaults(settings: Read) -> None:
    found = settings("")
    assert (found.app, found.name, found.broker, found.results, found.retry) == (None, None, None, None, None)
    assert found.codec is not None
    assert found.codec.provider.name == "json"
    assert (found.worker.concurrency, found.settings.result_ttl) == (100, 86400.0)
    assert not (found.queues or found.pools or found.middleware or found.observers or found.schedules)


def test_worker_and_limits_take_units(settings: Read) -> None:
    found = settings("""
    [worker]
    processes = 2
    prefetch = 0
    lease = "1m30s"
    shutdown_timeout = 45
    poll_interval = "500ms"
    blocked_after = 0.5
    max_jobs = 1000
    max_memory = "1GiB"
    [limits]
    max_message_size = "512KB"
    max_result_size = 1024
    dispatch_timeout = "5s"
    [results]
    ttl = "1w"
    """)
    worker, limits = found.worker, found.settings
    assert (worker.processes, worker.prefetch, worker.max_jobs, worker.max_memory) == (2, 0, 1000, 1024**3)
    assert (worker.lease, worker.shutdown_timeout, worker.poll_interval, worker.blocked_after) == (90, 45, 0.5, 0.5)
    assert (limits.max_message_size, limits.max_result_size, limits.dispatch_timeout) == (512_000, 1024, 5)
    assert limits.result_ttl == 7 * 86400


def test_queues_and_pools(settings: Read) -> None:
    found = settings("""
    [queues.mail]
    concurrency = 5
    rate_limit = "5/10s"
    [queues."a.b"]
    [pools.heavy]
    kind = "process"
    workers = 2
    timeout = "5m"
    max_calls = 100
    """)
    assert list(found.queues) == ["mail", "a.b"]
    assert (found.queues["mail"].concurrency, found.queues["mail"].rate_limit) == (5, Rate(5, 10.0))
    heavy = found.pools["heavy"]
    assert (heavy.kind, heavy.workers, heavy.timeout, heavy.max_calls) == ("process", 2, 300.0, 100)


def test_the_retry_policy_of_the_app(settings: Read) -> None:
    found = settings("""
    [retry]
    max_tries = 7
    mode = "linear"
    delay = "2s"
    delay_max = "1h"
    jitter = false
    on = ["OSError", "shop.errors.Busy"]
    """)
    assert found.retry is not None
    assert found.retry.make() == RetryPolicy(
        max_tries=7, mode="linear", delay=2, delay_max=3600, jitter=False, on=("OSError", "shop.errors.Busy")
    )


def test_options_of_tasks(settings: Read) -> None:
    found = settings("""
    [tasks."shop:*"]
    timeout = "30s"
    rate_limit = "100/m"
    retry_policy = { max_tries = 2, delay = "1m" }
    ack = "before"
    key = "order-{order}"
    key_ttl = "1d"
    limit_by = "{customer}"
    """)
    assert found.task_options == {
        "shop:*": {
            "timeout": 30.0,
            "rate_limit": Rate(100, 60.0),
            "retry_policy": RetryPolicy(max_tries=2, delay=60),
            "ack": "before",
            "key": "order-{order}",
            "key_ttl": 86400.0,
            "limit_by": "{customer}",
        }
    }


def test_results_and_codecs(settings: Read) -> None:
    assert settings("[results]\nenabled = false").results is False
    assert settings("[results]\nttl = 5").results is None
    found = settings('[results]\nurl = "memory://shop"\n[codec]\nuse = "msgpack"\nresult = "json"')
    assert not isinstance(found.results, bool)
    assert found.results is not None
    assert found.results.provider.name == "memory"
    assert found.codec is not None
    assert found.result_codec is not None
    assert (found.codec.provider.name, found.result_codec.provider.name) == ("msgpack", "json")


MOMENT = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "trigger"),
    [
        ('cron = "0 9 * * 1-5"', Cron("0 9 * * 1-5")),
        ('cron = "0 9 * * 1-5"\ntz = "Europe/Paris"', Cron("0 9 * * 1-5", tz="Europe/Paris")),
        ('every = "5m"', Every(300)),
        ("every = 2.5", Every(2.5)),
        ("every = { minutes = 1, seconds = 30 }", Every(90)),
        ("every = { hours = 1, anchor = 2030-01-02T03:04:00Z }", Every(3600, MOMENT)),
        ("calendar = { minutes = [0, 30] }", Calendar(minutes={0, 30})),
        (
            'calendar = { hours = [9], weekdays = ["mon"] }\ntz = "Asia/Tokyo"',
            Calendar(hours={9}, weekdays={"mon"}, tz="Asia/Tokyo"),
        ),
        ("at = 2030-01-02T03:04:00Z", Once(MOMENT)),
        ('at = "2030-01-02T04:04:00+01:00"', Once(MOMENT)),
        ('at = 2030-01-02T04:04:00\ntz = "Europe/Paris"', Once(MOMENT)),
        ('trigger = { use = "cron", expression = "0 9 * * *" }', Cron("0 9 * * *")),
        ('trigger = { use = "every", minutes = 5 }', Every(300)),
    ],
)
def test_schedules_of_every_trigger(settings: Read, text: str, trigger: Any) -> None:
    [schedule] = settings(f'[[schedules]]\nkey = "k"\ntask = "shop:report"\n{text}\n').schedules
    assert schedule.trigger.describe() == trigger.describe()
    assert schedule.trigger.next_after(MOMENT) == trigger.next_after(MOMENT)


def test_all_that_a_schedule_can_say(settings: Read) -> None:
    [schedule] = settings("""
    [[schedules]]
    key = "nightly"
    task = "shop:report"
    args = [1, { deep = [2] }]
    kwargs = { to = "ada", when = 2030-01-01 }
    every = "1d"
    group = "jp"
    catch_up = "all"
    overlap = "skip"
    """).schedules
    assert (schedule.key, schedule.task, schedule.group) == ("nightly", "shop:report", "jp")
    assert (schedule.args, schedule.catch_up, schedule.overlap) == ((1, {"deep": [2]}), "all", "skip")
    assert schedule.kwargs["to"] == "ada"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected one of cron, every, calendar, at, trigger, found none"),
        (
            'cron = "0 9 * * *"\nevery = "5m"',
            "expected one of cron, every, calendar, at, trigger, found cron and every",
        ),
        ('cron = "0 9 * *"', "schedules[0].cron: "),
        ('cron = "0 25 * * *"', "schedules[0].cron: bad hour field '25': expected 0 to 23"),
        ('every = "soon"', "schedules[0].every: expected a duration"),
        ("every = 0", "schedules[0].every: "),
        ("every = { minuts = 5 }", "schedules[0].every.minuts: unknown setting: did you mean 'minutes'?"),
        ('every = "5m"\ntz = "Europe/Paris"', "schedules[0].tz: every counts elapsed time"),
        ("calendar = { minutes = [75] }", "schedules[0].calendar"),
        ('calendar = "noon"', "schedules[0].calendar: expected a table, found 'noon'"),
        ('at = "noon"', "schedules[0].at: expected a date with a time, found 'noon'"),
        ("at = 2030-01-02T03:04:00", "schedules[0].at: expected a moment with a time zone"),
        ('cron = "* * * * *"\ntz = "Europe/Pariss"', "did you mean 'Europe/Paris'?"),
        ('trigger = { use = "crn" }', "schedules[0].trigger.use: unknown trigger 'crn': did you mean 'cron'?"),
        ("trigger = { minutes = 5 }", "schedules[0].trigger.use: is missing: expected a trigger's name"),
        ('every = "5m"\noverlap = "skp"', "found 'skp': did you mean 'skip'?"),
        ('every = "5m"\nkwargs = [1]', "schedules[0].kwargs: expected a table, found an array"),
    ],
)
def test_what_is_wrong_with_a_schedule(problems: Problems, text: str, told: str) -> None:
    [problem] = problems(f'[[schedules]]\nkey = "k"\ntask = "shop:report"\n{text}\n')
    assert told in problem


def test_schedules_are_an_array_of_tables_with_different_keys(problems: Problems) -> None:
    assert problems('schedules = "nightly"') == ["1:1: schedules: expected an array of tables, found 'nightly'"]
    one = '[[schedules]]\nkey = "k"\ntask = "t"\nevery = "5m"\n'
    assert problems(one + one) == [
        "6:1: schedules[1].key: two schedules are called 'k'; the other one is at camora.toml:2:1"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("worker = 3", "1:1: worker: expected a table, found 3"),
        ("[[worker]]", "1:3: worker: expected a table, found an array"),
        ("queues.mail = 3", "1:8: queues.mail: expected a table, found 3"),
        ("queues = []", "1:1: queues: expected a table, found an array"),
        ("[queues.mail]\nconcurrency = 0", "concurrency: a whole number from 1 to 1000000, found 0"),
        ('[queues."a b"]', "1:9: queues.\"a b\": queue name 'a b': ' ' is not allowed in it"),
        ('[pools.x]\nkind = "thread"\nworkers = 0', "1:8: pools.x: pool of kind 'thread': workers = 0"),
        ('[pools.x]\nkind = "thread"\ntimeout = 0', "3:1: pools.x.timeout: must be more than 0, found 0"),
        ('[pools.x]\nkind = "thread"\ntime = 0', "3:1: pools.x.time: unknown setting: did you mean 'timeout'?"),
        ("[pools.x]\nworkers = 1", "pools.x.kind: is missing: expected a text"),
        ('[tasks."a:*"]\nname = "b"', '2:1: tasks."a:*".name: unknown setting'),
        (
            "[tasks.a]\nretry_policy = { max_tris = 1 }",
            "retry_policy.max_tris: unknown setting: did you mean 'max_tries'",
        ),
        ("[retry]\nmax_tries = 0", "retry.max_tries: "),
        ('[retry]\nuse = "durabel"', "retry.use: "),
        ("[results]\nttl = 0", "2:1: results.ttl: must be more than 0, found 0"),
        ('[results]\nurl = "memory://"\nspeed = 1', "3:1: results.speed: unknown setting: known are enabled, ttl, url"),
        ('[broker]\nurl = "nats://here"', "2:1: broker.url: no plugin offers the URL scheme 'nats' for brokers."),
        ("[broker]\nurl = 5", "2:1: broker.url: expected a text, found 5"),
        ("[results]\nenabled = 1", "2:1: results.enabled: expected true or false, found 1"),
        ("[worker]\nconcurrency = 1.5", "2:1: worker.concurrency: expected a whole number, found 1.5"),
        ("[worker]\nconcurrency = true", "2:1: worker.concurrency: expected a whole number, found true"),
        ("[worker]\nlease = 07:32:00", '2:1: worker.lease: expected a duration such as "30s", found 07:32:00'),
        ('[observers]\nuse = ["loging"]', "2:8: observers.use[0]: unknown observer 'loging': did you mean 'logging'?"),
        ('[observers]\nuse = ["...", "..."]', "2:15: observers.use[1]: '...' is named twice"),
        ("[observers]\nuse = [5]", "2:8: observers.use[0]: expected a text, found 5"),
        ("[signing]", "1:2: signing: expected key, or keys: without one nothing can be signed"),
        ('[signing]\nkey = "short"', "2:1: signing.key: expected a key of at least 32 bytes, found one of 5"),
        ("[app]\nx = 1", "1:2: app: expected a text, found a table"),
        ("[plugins]\ndisable = 3", "2:1: plugins.disable: expected an array of text, found 3"),
        ('[logging]\nlevels = { "job.fail" = "debug" }', "logging"),
        ("[prometheus]\ndsn = 1", "1:2: prometheus: unknown section: known are "),
    ],
)
def test_each_mistake_names_place_key_and_what_was_expected(problems: Problems, text: str, told: str) -> None:
    [problem] = problems(text)
    assert told in problem


def test_a_key_and_keys_together_are_a_mistake(problems: Problems) -> None:
    key = "k" * 32
    assert problems(f'[signing]\nkey = "{key}"\nkeys = ["{key}"]') == ["2:1: signing.key: give key or keys, not both"]
