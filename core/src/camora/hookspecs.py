"""The hooks. They are called once, while an app is made, to collect what plugins offer; never per message.

A plugin is a module named by an entry point in the group `camora`, with any of these functions marked `@hookimpl`.
All return a list, possibly empty. Hook arguments are only ever added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from camora.interfaces.operations import Check, Command
from camora.plugin_options import TaskOption
from camora.provider import Provider

if TYPE_CHECKING:  # a plugin's module imports this one, and should be light
    from camora.interfaces import (
        Broker,
        Codec,
        Extension,
        Injector,
        Middleware,
        Observer,
        Pool,
        ResultBackend,
        RetryPolicyLike,
        ScheduleStore,
        Trigger,
        TypeSupport,
    )
    from camora.queue import Queue

__all__ = [
    "camora_brokers",
    "camora_checks",
    "camora_codecs",
    "camora_commands",
    "camora_extensions",
    "camora_injectors",
    "camora_middleware",
    "camora_observers",
    "camora_pools",
    "camora_queue_kinds",
    "camora_result_backends",
    "camora_retry_policies",
    "camora_schedule_stores",
    "camora_task_options",
    "camora_triggers",
    "camora_types",
    "hookimpl",
    "hookspec",
]

hookspec = pluggy.HookspecMarker("camora")
hookimpl = pluggy.HookimplMarker("camora")


@hookspec
def camora_brokers() -> Sequence[Provider[Broker]]:
    """Brokers, each with the URL schemes it answers to."""
    return []


@hookspec
def camora_result_backends() -> Sequence[Provider[ResultBackend]]:
    """Result backends, each with the URL schemes it answers to."""
    return []


@hookspec
def camora_codecs() -> Sequence[Provider[Codec]]:
    """Codecs, by name."""
    return []


@hookspec
def camora_pools() -> Sequence[Provider[Pool]]:
    """Pools, by kind; `settings` is `PoolSettings` or a class derived from it."""
    return []


@hookspec
def camora_retry_policies() -> Sequence[Provider[RetryPolicyLike]]:
    """Retry policies, by name."""
    return []


@hookspec
def camora_triggers() -> Sequence[Provider[Trigger]]:
    """Triggers of schedules, by name."""
    return []


@hookspec
def camora_schedule_stores() -> Sequence[Provider[ScheduleStore]]:
    """Schedule stores, each with the URL schemes it answers to."""
    return []


@hookspec
def camora_injectors() -> Sequence[Provider[Injector]]:
    """Injectors, by name."""
    return []


@hookspec
def camora_middleware() -> Sequence[Provider[Middleware]]:
    """Middleware, by the name under which settings turn it on."""
    return []


@hookspec
def camora_extensions() -> Sequence[Provider[Extension]]:
    """Extensions of apps, by the name of their settings, `[extensions.NAME]`; each is on where it is installed."""
    return []


@hookspec
def camora_observers() -> Sequence[Provider[Observer]]:
    """Observers, by the name under which settings turn them on."""
    return []


@hookspec
def camora_types() -> Sequence[Provider[TypeSupport]]:
    """Support for types of other libraries, by name; each is on where it is installed."""
    return []


@hookspec
def camora_queue_kinds() -> Sequence[Provider[Queue]]:
    """Kinds of queues, by the name under which settings choose them; `settings` is the class derived from `Queue`."""
    return []


@hookspec
def camora_task_options() -> Sequence[TaskOption]:
    """Options of tasks that a broker of this plugin reads."""
    return []


@hookspec
def camora_commands() -> Sequence[Command]:
    """Groups of subcommands for the command line."""
    return []


@hookspec
def camora_checks() -> Sequence[Check]:
    """Checks for `camora doctor`."""
    return []


EXPECTED: dict[str, type[Any]] = {
    "camora_commands": Command,
    "camora_checks": Check,
    "camora_task_options": TaskOption,
}
"""What the items of each hook must be; a `Provider` where nothing is said here."""
