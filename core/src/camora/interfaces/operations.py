"""What a plugin adds to the command line: commands and doctor checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs

__all__ = ["Check", "CheckResult", "Command"]


@attrs.frozen(kw_only=True)
class Command:
    """A group of subcommands: `camora NAME …`. `load` returns a `cyclopts.App`, and is called only when it is used.

    With `finds_app` it is given a function that finds the app as the core's own commands do:
    `find(reference, config=path, profile=name)`, each of which may be None. That raises `ConfigurationError`.
    """

    name: str
    help: str
    load: Callable[..., Any]
    finds_app: bool = False


@attrs.frozen(kw_only=True)
class CheckResult:
    """How a check ended. `fix` says what to do; with `ok` it is advice, without it is what mends the failure."""

    ok: bool
    text: str
    fix: str = ""


@attrs.frozen(kw_only=True)
class Check:
    """A doctor check; `order` sorts them, smaller first.

    `run` gets the app, opened, and leaves nothing behind in its stores; what it raises counts as a failure. It may be
    called in any event loop, and is given up after `timeout` seconds. With `offline` it does without the broker, and
    is looked at even when that is away.
    """

    name: str
    run: Callable[[Any], Awaitable[CheckResult]]
    order: int = 100
    timeout: float = 10.0
    offline: bool = False
    needs: tuple[str, ...] = ()
    """Names of checks before this one; where one of them failed, this one is not looked at."""
