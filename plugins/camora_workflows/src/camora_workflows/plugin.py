"""The plugin: what camora-workflows offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from camora.hookspecs import hookimpl
from camora.interfaces.operations import Check, Command
from camora.provider import MadeFrom, Provider

from camora_workflows.settings import WorkflowSettings

if TYPE_CHECKING:  # it is not needed to list commands, and takes long to import
    from camora.interfaces.extension import Extension

_HELP = "callbacks, chains, groups, chords and graphs of jobs; tasks that are done in durable steps"


def _extension(made: MadeFrom) -> Extension:
    from camora_workflows.extension import Workflows

    return Workflows(made.settings)


@hookimpl
def camora_extensions() -> Sequence[Provider[Extension]]:
    """Workflows."""
    return [Provider("workflows", _extension, settings=WorkflowSettings, help=_HELP)]


def _commands(find_app: Callable[..., Any]) -> Any:
    from camora_workflows.commands import build

    return build(find_app)


@hookimpl
def camora_commands() -> Sequence[Command]:
    """`camora workflow …`."""
    return [
        Command(
            name="workflow",
            help="Show, mend, cancel, retry or purge workflows.",
            load=_commands,
            finds_app=True,
        )
    ]


@hookimpl
def camora_checks() -> Sequence[Check]:
    """What `camora doctor` looks at."""
    from camora_workflows.checks import checks

    return checks()
