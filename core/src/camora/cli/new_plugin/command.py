"""The command."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["Kind", "new_plugin"]

Kind = Literal["broker", "codec", "pool", "retry", "scheduler", "injector", "results", "middleware"]


def new_plugin(name: str, *, kind: Kind, path: Path = Path()) -> None:
    """Write a plugin: a distribution that works, whose tests pass, and that you change into your own.

    Parameters
    ----------
    name
        What the plugin offers is called so: "nats" makes the distribution camora-nats with the package camora_nats.
    kind
        What it offers.
    path
        The folder to write it in; the distribution gets a folder of its own there.
    """
    from camora.cli.new_plugin.naming import Names
    from camora.cli.new_plugin.writing import write

    names = Names.of(name, kind)
    folder = write(names, kind, path)
    print(  # noqa: T201
        f"{folder} is a {kind} plugin that works. Look at src/{names.package}, and run its tests:\n"
        f"  cd {folder}\n"
        "  python -m pip install -e . --group test\n"
        "  python -m pytest\n"
        f"  camora plugins check {names.name}"
    )
