"""`manage.py camora …`: the commands of `camora`, for the app of this project."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand

__all__ = ["Command"]

_APP = "camora_django:app"
_DJANGOS = ("--settings", "--pythonpath")
"""What manage.py has heard already."""

_OF_FILES = (("config", "check"), ("config", "show"))
_ABOUT_A_FILE = (
    "camora: this project's settings are settings.CAMORA, and no camora.toml: "
    "manage.py check says what is wrong with them, manage.py diffsettings shows them"
)


class Command(BaseCommand):
    """Hands its arguments on as they are."""

    help = "Run a command of Camora's for this project: manage.py camora worker, … dead list, … --help for all of them."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """All of them are Camora's."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def run_from_argv(self, argv: list[str]) -> None:
        """From the command line: `--help` and all options are Camora's."""
        run(_without_djangos(argv[2:]))

    def handle(self, *args: Any, **options: Any) -> None:
        """From `call_command`. Ends with `SystemExit` when the command fails."""
        run([*args, *options["arguments"]])


def run(arguments: Sequence[str]) -> None:
    """Run a command of Camora's; raises `SystemExit` with its code unless all went well."""
    from camora.cli.codes import MISTAKE
    from camora.cli.main import main

    if _is_about_a_file(arguments):
        print(_ABOUT_A_FILE, file=sys.stderr)  # noqa: T201
        sys.exit(MISTAKE)
    # Also for the processes that a worker starts. An app that somebody names goes over it.
    os.environ.setdefault("CAMORA_APP", _APP)
    main(arguments)


def _is_about_a_file(arguments: Sequence[str]) -> bool:
    """Whether it is about a camora.toml, and names none."""
    named = any(argument.partition("=")[0] in ("--config", "--help", "-h") for argument in arguments)
    return tuple(arguments[:2]) in _OF_FILES and not named and "CAMORA_CONFIG" not in os.environ


def _without_djangos(arguments: Sequence[str]) -> list[str]:
    left: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in _DJANGOS:
            next(rest, None)
        elif argument.partition("=")[0] not in _DJANGOS:
            left.append(argument)
    return left
