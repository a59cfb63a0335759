"""Functions by reference: what another process can import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from camora.errors import ConfigurationError
from camora.task import Task

__all__ = ["check", "function_of", "resolve"]


def resolve(reference: str) -> Any:
    """The object at `module:qualname`. Raises `ConfigurationError`, or what the module raises when it is imported."""
    module_name, _, qualname = reference.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigurationError(f"{reference}: module {module_name} has no {qualname!r}") from None
    return found


def function_of(found: Any) -> Any:
    """The function behind what a module holds under its name: usually the task that its decorator made of it."""
    return found.function if isinstance(found, Task) else found


def check(function: Callable[..., Any], reference: str, task: str) -> None:
    """Make sure that another process will find this very function. Raises `ConfigurationError` that says what to do."""
    module_name, _, qualname = reference.partition(":")
    if "<lambda>" in qualname or "<locals>" in qualname:
        what = "a lambda" if "<lambda>" in qualname else "defined inside another function"
        raise ConfigurationError(
            f"{task}: {qualname} is {what}, so another process cannot import it. Define it at module level, or use "
            'execution="thread"'
        )
    if module_name == "__main__" and not getattr(sys.modules["__main__"], "__file__", None):
        raise ConfigurationError(
            f"{task}: {qualname} was typed in an interactive session, so another process cannot import it. Write it to "
            "a file"
        )
    if function_of(resolve(reference)) is not function:
        raise ConfigurationError(
            f"{task}: {reference} is another function by now, so another process would run the wrong one. Give the "
            "function a name of its own in its module"
        )
