"""The plugin: what camora-amqp offers. The client library is imported only when somebody uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from camora.hookspecs import hookimpl
from camora.interfaces import Broker, Check, ResultBackend, ScheduleStore, TaskOption
from camora.provider import MadeFrom, Provider
from camora.queue import Queue
from camora.settings import structure_settings

from camora_amqp.exchanges import Binding, Exchange, Route
from camora_amqp.settings import SCHEMES, AmqpSettings
from camora_amqp.topology import Queue as AmqpQueue

_DEFAULT = "amqp://localhost"


def _broker(made: MadeFrom) -> Broker:
    from camora_amqp.broker import AmqpBroker

    return AmqpBroker.from_url(made.url or _DEFAULT, made.settings)


def _results(made: MadeFrom) -> ResultBackend:
    from camora_amqp.results import AmqpResultBackend

    return AmqpResultBackend(made.url or _DEFAULT, made.settings)


def _schedules(made: MadeFrom) -> ScheduleStore:
    from camora_amqp.schedules import AmqpScheduleStore
    from camora_amqp.store import Store

    return AmqpScheduleStore(Store.of_url(made.url or _DEFAULT, made.settings))


def _queue(made: MadeFrom) -> Queue:
    queue: Queue = made.settings
    return queue


def _exchange(value: Any) -> Any:
    """An exchange, or its name; from a file also a table. Raises `ConfigurationError`."""
    if isinstance(value, Mapping):
        return structure_settings(Exchange, value, where="exchange")
    return Binding(value).exchange


def _headers(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Headers that a message may have. Raises `ConfigurationError`."""
    return Route("amq.headers", headers=value).headers


@hookimpl
def camora_brokers() -> Sequence[Provider[Broker]]:
    """The RabbitMQ broker."""
    return [Provider("amqp", _broker, settings=AmqpSettings, schemes=SCHEMES, help="queues of RabbitMQ")]


@hookimpl
def camora_result_backends() -> Sequence[Provider[ResultBackend]]:
    """Results over reply queues."""
    text = "results through a reply queue of RabbitMQ, to the process that dispatched the job"
    return [Provider("amqp", _results, settings=AmqpSettings, schemes=SCHEMES, help=text)]


@hookimpl
def camora_schedule_stores() -> Sequence[Provider[ScheduleStore]]:
    """Schedules in a message."""
    text = "all schedules in one message of RabbitMQ"
    return [Provider("amqp", _schedules, settings=AmqpSettings, schemes=SCHEMES, help=text)]


@hookimpl
def camora_checks() -> Sequence[Check]:
    """What `camora doctor` looks at."""
    from camora_amqp.checks import checks

    return checks()


@hookimpl
def camora_queue_kinds() -> Sequence[Provider[Queue]]:
    """Queues with properties of their own."""
    return [Provider("amqp", _queue, settings=AmqpQueue, help="a queue of RabbitMQ with properties of its own")]


@hookimpl
def camora_task_options() -> Sequence[TaskOption]:
    """Where a task's jobs are sent."""
    return [
        TaskOption(
            "exchange", Any, check=_exchange, dispatch=True,
            help="the exchange that jobs are sent to, instead of straight to a queue",
        ),
        TaskOption("routing_key", str, dispatch=True, help="the routing key; the queue's name, if there is none"),
        TaskOption(
            "message_headers", Mapping[str, Any], check=_headers, dispatch=True,
            help="headers of the message on the server, which an exchange of type headers looks at",
        ),
        TaskOption("route", Route, dispatch=True, help="exchange, routing key and headers in one"),
    ]  # fmt: skip
