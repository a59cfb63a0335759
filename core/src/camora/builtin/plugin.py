"""The built-in plugin: what the core brings, through the door that all plugins use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from camora.builtin.observers.settings import LoggingSettings
from camora.builtin.triggers import Calendar, Cron, EverySettings, Once
from camora.hookspecs import hookimpl
from camora.interfaces import (
    Broker,
    Check,
    Codec,
    Injector,
    Observer,
    Pool,
    PoolSettings,
    ResultBackend,
    RetryPolicyLike,
    ScheduleStore,
    Trigger,
)
from camora.provider import MadeFrom, Provider
from camora.queue import Queue
from camora.retry import RetryPolicy


def _broker(made: MadeFrom) -> Broker:
    from camora.builtin.memory import make_broker

    return make_broker(made)


def _results(made: MadeFrom) -> ResultBackend:
    from camora.builtin.memory import make_results

    return make_results(made)


def _schedules(made: MadeFrom) -> ScheduleStore:
    from camora.builtin.memory import make_schedules

    return make_schedules(made)


def _json(_: MadeFrom) -> Codec:
    from camora.builtin.json_codec import JsonCodec

    return JsonCodec()


def _msgpack(_: MadeFrom) -> Codec:
    from camora.builtin.msgpack_codec import MsgpackCodec

    return MsgpackCodec()


def _injector(_: MadeFrom) -> Injector:
    from camora.builtin.injector import SvcsInjector

    return SvcsInjector()


def _pool(kind: str) -> Any:
    def make(made: MadeFrom) -> Pool:
        from camora.builtin.pools import make_pool

        return make_pool(kind, made.settings)

    return make


def _retry(made: MadeFrom) -> RetryPolicyLike:
    policy: RetryPolicy = made.settings
    return policy


def _as_set(made: MadeFrom) -> Trigger:
    trigger: Trigger = made.settings
    return trigger


def _queue(made: MadeFrom) -> Queue:
    queue: Queue = made.settings
    return queue


def _every(made: MadeFrom) -> Trigger:
    settings: EverySettings = made.settings
    return settings.trigger()


def _logging(made: MadeFrom) -> Observer:
    from camora.builtin.observers.logging import LoggingObserver

    return LoggingObserver(made.settings.logger, levels=made.settings.levels)


@hookimpl
def camora_brokers() -> Sequence[Provider[Broker]]:
    """The memory broker: one process, nothing durable."""
    return [Provider("memory", _broker, schemes=("memory",), help="in this process, not durable")]


@hookimpl
def camora_result_backends() -> Sequence[Provider[ResultBackend]]:
    """The memory result backend."""
    return [Provider("memory", _results, schemes=("memory",), help="in this process, not durable")]


@hookimpl
def camora_codecs() -> Sequence[Provider[Codec]]:
    """JSON and MessagePack."""
    return [
        Provider("json", _json, help="UTF-8 JSON, readable"),
        Provider("msgpack", _msgpack, help="MessagePack, compact"),
    ]


@hookimpl
def camora_pools() -> Sequence[Provider[Pool]]:
    """The four kinds of pool."""
    texts = {
        "async": "coroutine functions, in the worker's loop",
        "sync": "plain functions in the worker's loop; they block it",
        "thread": "plain functions in threads",
        "process": "functions in processes of their own, killed on timeout",
    }
    return [Provider(kind, _pool(kind), settings=PoolSettings, help=text) for kind, text in texts.items()]


@hookimpl
def camora_retry_policies() -> Sequence[Provider[RetryPolicyLike]]:
    """The durable policy."""
    return [Provider("durable", _retry, settings=RetryPolicy, help="fixed, linear or exponential, with jitter")]


@hookimpl
def camora_triggers() -> Sequence[Provider[Trigger]]:
    """When schedules are due."""
    return [
        Provider("cron", _as_set, settings=Cron, help="a cron expression, in a time zone"),
        Provider("every", _every, settings=EverySettings, help="even intervals from an anchor"),
        Provider("calendar", _as_set, settings=Calendar, help="sets of seconds to months, in a time zone"),
        Provider("once", _as_set, settings=Once, help="one moment"),
    ]


@hookimpl
def camora_queue_kinds() -> Sequence[Provider[Queue]]:
    """The kind that every broker has."""
    return [Provider("plain", _queue, settings=Queue, help="each job goes to one worker; every broker has it")]


@hookimpl
def camora_schedule_stores() -> Sequence[Provider[ScheduleStore]]:
    """The memory store of schedules."""
    return [Provider("memory", _schedules, schemes=("memory",), help="in this process, not durable")]


@hookimpl
def camora_injectors() -> Sequence[Provider[Injector]]:
    """The injector on svcs."""
    return [Provider("svcs", _injector, help="factories by type, scoped to app or job")]


@hookimpl
def camora_observers() -> Sequence[Provider[Observer]]:
    """Events as log lines."""
    return [Provider("logging", _logging, settings=LoggingSettings, help="each event as a log line, with its fields")]


@hookimpl
def camora_checks() -> Sequence[Check]:
    """What `camora doctor` looks at."""
    from camora.builtin.checks import checks

    return checks()
