"""Which commands there are: names and one line of help each, without importing any of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import attrs

from camora.errors import ConfigurationError

__all__ = ["COMMANDS", "Listed", "core_command", "core_commands", "plugin_commands"]


@attrs.frozen
class Listed:
    """A command as `camora --help` lists it; `load` imports it and returns a function or a `cyclopts.App`."""

    section: str
    name: str
    help: str
    load: Callable[[], Any] = attrs.field(eq=False, repr=False)


COMMANDS: tuple[tuple[str, str, str, str], ...] = (
    ("Begin", "init", "camora.cli.init", "Write a camora.toml and a tasks.py to begin with."),
    ("Begin", "demo", "camora.cli.demo", "Show jobs, retries and dead letters at work, in one process."),
    ("Run", "dev", "camora.cli.dev", "Worker and scheduler in one terminal, restarted when a file changes."),
    ("Run", "worker", "camora.cli.worker", "Run jobs until SIGTERM or Ctrl-C."),
    ("Run", "scheduler", "camora.cli.scheduler", "Dispatch what is due, by the app's schedules."),
    ("Run", "dispatch", "camora.cli.dispatch", "Dispatch a job."),
    ("Look", "job", "camora.cli.job", "Show, cancel, signal or forget jobs."),
    ("Look", "why", "camora.cli.why", "Say why a job is not running."),
    ("Look", "dead", "camora.cli.dead", "List, requeue or purge dead letters."),
    ("Look", "queues", "camora.cli.queues", "Count, pause, resume or purge queues."),
    ("Look", "schedules", "camora.cli.schedules", "List, pause, resume or run schedules."),
    ("Look", "workers", "camora.cli.workers", "List workers, quiet or stop them."),
    ("Look", "shell", "camora.cli.shell", "A Python prompt with the app and its tasks."),
    ("Set up", "config", "camora.cli.config", "Check, show or describe camora.toml."),
    ("Set up", "plugins", "camora.cli.plugins", "List the installed plugins and what they provide."),
    ("Set up", "doctor", "camora.cli.doctor", "Check the whole set-up, and say how to mend it."),
    ("Set up", "new-plugin", "camora.cli.new_plugin", "Write the distribution of a new plugin."),
)
"""Section, name, module, help. A module offers `app` (a `cyclopts.App`), or a function named as the command."""


def core_commands() -> list[Listed]:
    """The commands that come with camora."""
    return [Listed(section, name, text, _loader(name, module)) for section, name, module, text in COMMANDS]


def core_command(name: str) -> Listed | None:
    """The one of this name."""
    return next((command for command in core_commands() if command.name == name), None)


def _loader(name: str, module: str) -> Callable[[], Any]:
    def load() -> Any:
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise ConfigurationError(f"camora {name} is not part of this installation ({module} is missing)") from None
        function = name.replace("-", "_")
        return getattr(found, "app", None) or getattr(found, function, None) or getattr(found, f"list_{function}")

    return load


def plugin_commands() -> list[Listed]:
    """The commands of plugins: their modules are imported, what the commands are made of is not.

    A plugin that cannot be asked is left out here; `camora plugins` says why. A name that camora has itself is
    camora's.
    """
    from camora import plugins

    taken = {command[1] for command in COMMANDS}
    found = []
    for source in plugins.discover():
        if source.distribution == "camora":
            continue  # what the core offers stands in the table
        try:
            offered = _offered(source.load())
        except Exception:  # noqa: BLE001, S112 -- a stranger's module may fail in any way, and help goes on
            continue
        found += [Listed("Plugins", item.name, item.help, item.load) for item in offered if item.name not in taken]
    return sorted(found, key=lambda command: command.name)


def _offered(module: Any) -> list[Any]:
    from camora.interfaces.operations import Command

    hook = getattr(module, "camora_commands", None)
    if hook is None or not getattr(hook, "camora_impl", None):
        return []
    return [item for item in hook() if isinstance(item, Command)]
