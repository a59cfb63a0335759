"""The plugin: what camora-servicebus offers. The client library is imported only when somebody uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from camora.hookspecs import hookimpl
from camora.interfaces import Broker, Check, Command, TaskOption
from camora.provider import MadeFrom, Provider
from camora.queue import Queue

from camora_servicebus.description import ServiceBusQueue
from camora_servicebus.settings import SCHEMES, ServiceBusSettings
from camora_servicebus.task_options import checked_properties, checked_session, checked_topic
from camora_servicebus.topics import ServiceBusSubscription


def _broker(made: MadeFrom) -> Broker:
    from camora_servicebus.broker import ServiceBusBroker

    return ServiceBusBroker.from_url(made.url, made.settings)


def _queue(made: MadeFrom) -> Queue:
    queue: Queue = made.settings
    return queue


def servicebus(find_app: Callable[..., object]) -> object:
    """`camora servicebus`."""
    from camora_servicebus.commands import build

    return build(find_app)


@hookimpl
def camora_brokers() -> Sequence[Provider[Broker]]:
    """The broker in Azure Service Bus."""
    text = "queues of Azure Service Bus"
    return [Provider("servicebus", _broker, settings=ServiceBusSettings, schemes=SCHEMES, help=text)]


@hookimpl
def camora_queue_kinds() -> Sequence[Provider[Queue]]:
    """Queues with properties of their own."""
    text = "a queue of Azure Service Bus with properties of its own"
    of_topic = "a subscription of a topic of Azure Service Bus: it gets a copy of what is sent there"
    return [
        Provider("servicebus", _queue, settings=ServiceBusQueue, help=text),
        Provider("servicebus-subscription", _queue, settings=ServiceBusSubscription, help=of_topic),
    ]


@hookimpl
def camora_task_options() -> Sequence[TaskOption]:
    """Where a task's jobs are sent, and in which order they run."""
    return [
        TaskOption(
            "topic", Any, check=checked_topic, dispatch=True,
            help="the topic that jobs are sent to, instead of straight to a queue",
        ),
        TaskOption(
            "session", str, check=checked_session, dispatch=True,
            help="whose jobs run one after the other, in the order of their dispatch",
        ),
        TaskOption(
            "message_properties", Mapping[str, Any], check=checked_properties, dispatch=True,
            help="properties of the message on the service, which the filters of subscriptions look at",
        ),
    ]  # fmt: skip


@hookimpl
def camora_commands() -> Sequence[Command]:
    """`camora servicebus apply`."""
    text = "Queues and topics of an app in Azure Service Bus."
    return [Command(name="servicebus", help=text, load=servicebus, finds_app=True)]


@hookimpl
def camora_checks() -> Sequence[Check]:
    """What `camora doctor` looks at."""
    from camora_servicebus.checks import checks

    return checks()
