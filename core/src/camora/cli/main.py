"""`camora …`: the commands of the core, and those of plugins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]

EXIT_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with 0, 1 (it failed) or 2 (a mistake in set-up or arguments)."""
    from camora.errors import CamoraError, ConfigurationError

    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        answer = build(given[:1])(given, result_action="return_value")
    except ConfigurationError as error:
        print(f"camora: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_CONFIGURATION)
    except CamoraError as error:
        print(f"camora: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    if isinstance(answer, int) and answer:
        sys.exit(answer)


def build(asked: Sequence[str] = ()) -> Any:
    """The command tree; of what plugins add, only the commands named in `asked` are loaded."""
    from importlib.metadata import version

    import cyclopts

    from camora import plugins
    from camora.cli.plugins import list_plugins
    from camora.cli.worker import worker

    app = cyclopts.App(
        name="camora", help="Background tasks: run workers, list plugins.", version=lambda: version("camora")
    )
    app.command(worker, name="worker")
    app.command(list_plugins, name="plugins")
    catalog = plugins.load()
    for command in catalog.items["camora_commands"].values():
        if command.name in asked:
            app.command(command.load(), name=command.name)
        else:
            # A name and a line of help: what it is made of is imported when it is used.
            app.command(lambda: None, name=command.name, help=command.help)
    return app
