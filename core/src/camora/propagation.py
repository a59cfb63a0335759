"""Context variables on their way to another process.

A `ContextVar` has no name to be found by, but nearly all of them stand at the top of a module; those travel as (module,
attribute, pickled value). Variables that stand nowhere, and values that cannot be pickled, stay where they are.
"""

from __future__ import annotations

import contextvars
import importlib
import pickle
import sys
from typing import Any

__all__ = ["Carried", "capture", "restore"]

Carried = tuple[tuple[str, str, bytes], ...]
"""Module, attribute and pickled value of each variable."""

_MOST_SEARCHED = 1_000

_homes: dict[contextvars.ContextVar[Any], tuple[str, str] | None] = {}
"""Where each variable stands that was ever met; None is nowhere, or where nothing is to be carried from."""
_searched: dict[contextvars.ContextVar[Any], int] = {}
"""How many modules there were when a variable was not found: a module that is still being imported hides its own."""


def capture() -> Carried:
    """The variables that are set in the caller's context and can travel. Never raises."""
    carried = []
    for variable, value in contextvars.copy_context().items():
        home = _homes[variable] if variable in _homes else _look_up(variable)
        if home is not None:
            try:
                carried.append((*home, pickle.dumps(value, pickle.HIGHEST_PROTOCOL)))
            except Exception:  # noqa: BLE001, S112 -- a stranger's __reduce__; what cannot travel stays
                continue
    return tuple(carried)


def restore(carried: Carried) -> None:
    """Set them in the current context; one that does not exist here or does not unpickle is left out."""
    for module, attribute, data in carried:
        try:
            variable = getattr(importlib.import_module(module), attribute)
            if isinstance(variable, contextvars.ContextVar):
                variable.set(pickle.loads(data))  # noqa: S301 -- from this program's own other process
        except Exception:  # noqa: BLE001, S112 -- as said
            continue


def _look_up(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    """Search all modules, once; again only when more of them have been imported."""
    if _searched.get(variable) == len(sys.modules):
        return None
    home = _home_of(variable)
    if home is None:
        if len(_searched) >= _MOST_SEARCHED:  # somebody makes variables as he goes along
            _searched.clear()
        _searched[variable] = len(sys.modules)
        return None
    _searched.pop(variable, None)
    found = _homes[variable] = None if _is_kept_back(home[0]) else home
    return found


def _home_of(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                # `__mp_main__` is how a process that was started by another one knows its main module.
                return ("__main__" if name == "__mp_main__" else name), attribute
    return None


def _is_kept_back(module: str) -> bool:
    """True for the standard library's own variables and Camora's: they describe this process and its loop."""
    top = module.partition(".")[0]
    return top != "__main__" and (top in sys.stdlib_module_names or top == "camora")
