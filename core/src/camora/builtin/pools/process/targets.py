"""What is called, by a name that both processes know."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any

import attrs

from camora.errors import ConfigurationError

__all__ = ["Target", "find", "import_home", "target_of"]


@attrs.frozen
class Target:
    """A function at the top of a module. `file` is where the module came from, should its name not be importable."""

    module: str
    qualname: str
    file: str = ""


def target_of(function: Callable[..., Any], reference: str, task: str) -> Target:
    """The target under which another process finds this function, or this bound method's class.

    Raises `ConfigurationError` for lambdas, closures, and names that lead to something else.
    """
    owner: Any = function.__self__.__class__ if inspect.ismethod(function) else function
    if not reference:
        reference = f"{getattr(owner, '__module__', '')}:{getattr(owner, '__qualname__', '')}"
    module_name, _, qualname = reference.partition(":")
    label = task or reference
    if "<" in qualname or not qualname:
        raise ConfigurationError(
            f"{label}: {qualname or owner!r} cannot be called in another process, because only names at the top of a "
            "module can be found there: define it at module level"
        )
    module = sys.modules.get(module_name)
    if module is None or not _leads_to(module, qualname, owner):
        raise ConfigurationError(
            f"{label}: {reference} does not lead to the task's function, so another process cannot find it: define it "
            "at module level, under a name of its own"
        )
    return Target(module_name, qualname, getattr(module, "__file__", None) or "")


def find(target: Target) -> Callable[..., Any]:
    """The function, or class. Raises what importing its module raises, and `ConfigurationError` if it is not there."""
    module = import_home(target)
    found = _attribute(module, target.qualname)
    if found is None:
        raise ConfigurationError(f"module {target.module!r} has no {target.qualname!r} in the process of the pool")
    return _unwrapped(found)


def import_home(target: Target) -> Any:
    """The target's module, by name, or from its file where the name cannot be imported."""
    try:
        return importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not target.file or not (target.module == missing or target.module.startswith(f"{missing}.")):
            raise
    spec = importlib.util.spec_from_file_location(target.module, target.file)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"module {target.module!r} cannot be imported from {target.file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[target.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[target.module]
        raise
    return module


def _leads_to(module: Any, qualname: str, owner: Any) -> bool:
    found = _attribute(module, qualname)
    return found is owner or _unwrapped(found) is owner


def _attribute(module: Any, qualname: str) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _unwrapped(found: Any) -> Any:
    """The function that a task stands for: the decorator has put the task in its place."""
    from camora.task import Task

    return found.function if isinstance(found, Task) else found
