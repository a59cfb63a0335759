"""The plugin: what camora-redis offers. The client library is imported only when somebody uses it."""

from __future__ import annotations

from collections.abc import Sequence

from camora.hookspecs import hookimpl
from camora.interfaces import Broker, Check, ResultBackend, ScheduleStore, TaskOption
from camora.provider import MadeFrom, Provider
from camora.queue import Queue

from camora_redis.kinds import ListQueue, PubSubQueue
from camora_redis.settings import SCHEMES, RedisSettings

_HELP = "streams in Redis or Valkey; a single server, Sentinel or a cluster"


def _broker(made: MadeFrom) -> Broker:
    from camora_redis.broker import RedisBroker

    return RedisBroker.from_url(made.url or "redis://localhost:6379/0", made.settings)


def _results(made: MadeFrom) -> ResultBackend:
    from camora_redis.results import RedisResultBackend

    return RedisResultBackend(made.url or "redis://localhost:6379/0", made.settings)


def _queue(made: MadeFrom) -> Queue:
    queue: Queue = made.settings
    return queue


def _not_negative(value: int) -> int:
    """A number of replicas. Raises `ValueError`."""
    if value < 0:
        raise ValueError(f"expected 0 or more, found {value}")
    return value


def _schedules(made: MadeFrom) -> ScheduleStore:
    from camora_redis.schedules import RedisScheduleStore
    from camora_redis.store import Store

    return RedisScheduleStore(Store.of_url(made.url or "redis://localhost:6379/0", made.settings))


@hookimpl
def camora_brokers() -> Sequence[Provider[Broker]]:
    """The Redis broker."""
    return [Provider("redis", _broker, settings=RedisSettings, schemes=SCHEMES, help=_HELP)]


@hookimpl
def camora_result_backends() -> Sequence[Provider[ResultBackend]]:
    """The Redis result backend."""
    return [Provider("redis", _results, settings=RedisSettings, schemes=SCHEMES, help=_HELP)]


@hookimpl
def camora_schedule_stores() -> Sequence[Provider[ScheduleStore]]:
    """The Redis store of schedules."""
    return [Provider("redis", _schedules, settings=RedisSettings, schemes=SCHEMES, help=_HELP)]


@hookimpl
def camora_queue_kinds() -> Sequence[Provider[Queue]]:
    """Broadcasts, and lists that other programs share."""
    return [
        Provider("pubsub", _queue, settings=PubSubQueue, help="pub/sub in Redis: every worker hears it, at most once"),
        Provider("list", _queue, settings=ListQueue, help="a list in Redis, shared with programs of any kind"),
    ]


@hookimpl
def camora_task_options() -> Sequence[TaskOption]:
    """How safe a dispatch must be."""
    text = (
        "how many replicas must have a dispatch before it counts as stored, instead of what the broker's settings say"
    )
    return [TaskOption("wait_replicas", int, check=_not_negative, dispatch=True, help=text)]


@hookimpl
def camora_checks() -> Sequence[Check]:
    """What `camora doctor` looks at."""
    from camora_redis.checks import checks

    return checks()
