"""Finding the import name of an object, and the object of an import name."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path
from typing import Any

from camora.errors import ConfigurationError
from camora.task import home_of

__all__ = ["import_object", "reference_of"]


def reference_of(what: object) -> str:
    """`module:attribute` under which other processes can import this object; empty when it has no such name."""
    for name, module in list(sys.modules.items()):
        if name == "__mp_main__":
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is what:
                home = home_of(_Named(name))
                return f"{home}:{attribute}"
    return ""


class _Named:
    def __init__(self, module: str) -> None:
        self.__module__ = module


def import_object(reference: str, *, kind: str = "app") -> Any:
    """Import `module:attribute` (or `path/to/file.py:attribute`), looking in the working folder too.

    Raises `ConfigurationError` that says what is missing, and never a traceback of a mistyped name; errors inside the
    module are the user's and are shown whole.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"{kind} {reference!r}: write module:attribute, for example shop.tasks:app for `app = Camora(…)` in "
            "shop/tasks.py"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if module_name.endswith(".py"):
        path = Path(module_name)
        if not path.is_file():
            raise ConfigurationError(f"{kind} {reference!r}: there is no file {module_name}")
        sys.path.insert(0, str(path.parent.resolve()))
        module_name = path.stem
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"{kind} {reference!r}: there is no module {error.name!r} (looked in {here} and the installed packages)"
            ) from None
        raise ConfigurationError(
            f"{kind} {reference!r}: {module_name} imports {error.name!r}, which is not installed"
        ) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, vars(module), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"{kind} {reference!r}: module {module_name} has no {part!r}{hint}")
        found = getattr(found, part)
    return found
