"""`camora …`: finds the command by its name, and imports nothing else."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from camora.cli.codes import INTERRUPTED, OK
from camora.cli.table import COMMANDS, Listed, core_command, core_commands, plugin_commands

if TYPE_CHECKING:
    import cyclopts

    from camora.interfaces.operations import Command

__all__ = ["main"]

_AFTER = ("--app", "-a", "--config", "--profile", "--json")
"""What people try first, and is understood behind a command only."""
_ELSEWHERE = {
    "sql": "pip install camora-sql; if it is installed, camora plugins tells what keeps it away",
    "workflow": "pip install camora-workflows; if it is installed, camora plugins tells what keeps it away",
}
"""Commands that the pages speak of, and what brings them."""
_COMPLETION = ("--install-completion", "__complete")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process with one of the codes of `camora.cli.codes` unless all went well."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output (`| head`) has seen enough; Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    except Exception as error:  # noqa: BLE001 -- it is told with its traceback, masked
        from camora.cli.failing import explained

        text, code = explained(error)
        print(text, file=sys.stderr)  # noqa: T201
    if code:
        sys.exit(code)


def _run(given: Sequence[str]) -> int:
    if len(given) > 1 and given[0] == "help":
        given = [*given[1:], "--help"]
    first = given[0] if given else "--help"
    if first in ("--help", "-h", "help"):
        from camora.cli.front import front_page

        print(front_page([*core_commands(), *plugin_commands()], version=_version()))  # noqa: T201
        return OK
    if first in ("--version", "-V"):
        print(_version())  # noqa: T201
        return OK
    commands = [*core_commands(), *_plugin_commands()] if first in _COMPLETION else [_command(first)]
    answer = _tree(commands)(given, result_action="return_value", exit_on_error=False, print_error=False)
    return answer if isinstance(answer, int) else OK


def _version() -> str:
    from importlib.metadata import version

    return version("camora")


def _command(name: str) -> Listed:
    found = core_command(name)
    if found is not None:
        return found
    others = {command.name: command for command in _plugin_commands()}
    if name in others:
        return others[name]
    raise _unknown(name, [*(command[1] for command in COMMANDS), *others, "--help", "--version", *_COMPLETION[:1]])


def _plugin_commands() -> list[Listed]:
    """What plugins add, as the app's own loader finds it: here, a broken plugin is an error that is named."""
    from camora import plugins

    found = plugins.load().items["camora_commands"].values()
    return [Listed("Plugins", command.name, command.help, _loader(command)) for command in found]


def _loader(command: Command) -> Callable[[], Any]:
    if not command.finds_app:
        return command.load
    from camora.cli.finding import find_app

    return functools.partial(command.load, find_app)


def _unknown(name: str, known: Sequence[str]) -> Exception:
    import difflib

    from camora.errors import ConfigurationError

    option = name.startswith("-")
    if option and name.partition("=")[0] in _AFTER:
        return ConfigurationError(f"{name} goes behind the command: camora COMMAND {name} …")
    if name in _ELSEWHERE:
        return ConfigurationError(f"the command {name!r} comes with a plugin that is not there: {_ELSEWHERE[name]}")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "camora --help lists all commands"
    return ConfigurationError(f"there is no {'option' if option else 'command'} {name!r}: {hint}")


def _tree(commands: Iterable[Listed]) -> cyclopts.App:
    import cyclopts

    root = cyclopts.App(name="camora", help="Background tasks.", version=_version)
    commands = list(commands)
    for command in commands:
        try:
            loaded: Any = command.load()
        except Exception:  # of many, one that does not load leaves the others to be completed
            if len(commands) == 1:
                raise
            continue
        if isinstance(loaded, cyclopts.App):
            root.command(loaded, name=command.name)
        else:
            root.command(loaded, name=command.name, help=None)
    root.register_install_completion_command(add_to_startup=False)
    return root
