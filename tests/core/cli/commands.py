"""Every command there is, with words that make it do something, so that a test can run them all."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import cyclopts
from camora.cli.table import COMMANDS, core_commands

__all__ = ["WORDS", "command_paths", "loaded"]

JOB = "job-of-the-test"

WORDS: dict[str, list[str]] = {
    "init": ["fresh"],
    "demo": ["--jobs", "1"],
    "dev": [],
    "worker": ["--burst", "--log-level", "debug"],
    "scheduler": [],
    "dispatch": ["add", "1", "2", "--job-id", JOB],
    "job show": [JOB],
    "job cancel": [JOB],
    "job signal": [JOB, "approved", '{"by": "ada"}'],
    "job prune": ["--older-than", "1d", "--yes"],
    "why": [JOB],
    "dead": [],
    "dead list": [],
    "dead show": [JOB],
    "dead requeue": ["--all", "--yes"],
    "dead purge": ["--all", "--yes"],
    "queues": [],
    "queues list": [],
    "queues pause": ["mail"],
    "queues resume": ["mail"],
    "queues purge": ["mail", "--yes"],
    "schedules": [],
    "schedules list": [],
    "schedules show": ["of-the-test"],
    "schedules preview": ["--cron", "0 9 * * *"],
    "schedules add": ["of-the-test", "add", "1", "2", "--every", "1d"],
    "schedules pause": ["of-the-test"],
    "schedules resume": ["of-the-test"],
    "schedules remove": ["of-the-test", "--yes"],
    "schedules run": ["of-the-test"],
    "workers": [],
    "workers list": [],
    "workers quiet": ["--all"],
    "workers resume": ["--all"],
    "workers stop": ["--all"],
    "shell": [],
    "config check": [],
    "config show": [],
    "config schema": [],
    "plugins": [],
    "plugins check": [],
    "doctor": [],
    "new-plugin": ["camora-x", "--kind", "codec"],
}
"""By command path: the words that follow it."""


def loaded() -> Iterator[tuple[str, Any]]:
    """The core's commands that are part of this installation, each with its `cyclopts.App`."""
    for command, (_, name, module, _) in zip(core_commands(), COMMANDS, strict=True):
        if find_spec(module) is None:
            continue
        made = command.load()
        if not isinstance(made, cyclopts.App):
            wrapped = cyclopts.App(name=name)
            wrapped.default(made)
            made = wrapped
        yield name, made


def command_paths() -> Iterator[tuple[str, Any]]:
    """Every path that can be called, such as `queues pause`, with the function's own app."""
    for name, app in loaded():
        if app.default_command is not None:
            yield name, app
        for word in app:
            if not word.startswith("-"):
                yield f"{name} {word}", app[word]
