"""The main module in a process of the pool.

multiprocessing runs the parent's main module again in every process it starts. Few calls need that: only those whose
function, types or app stand in a script itself. Without it a process starts sooner, and a script that lacks its
`if __name__ == "__main__"` does not start itself over and over for the sake of functions that stand elsewhere.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
import threading
from collections.abc import Iterator
from multiprocessing import process, spawn
from types import ModuleType
from typing import Any

from camora.task import home_of

__all__ = ["Main", "app_reference", "imported_for_another", "left_out", "load", "main_of_parent"]

Main = tuple[str, str] | None
"""`name` or `path`, and which; None where there is neither, as in an interactive session."""

_KEYS = {"init_main_from_name": "name", "init_main_from_path": "path"}
_starting = threading.Lock()
_loaded: set[Main] = set()


def main_of_parent() -> Main:
    """How another process finds this one's main module."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name.endswith(".__main__"):
        return "name", spec.name  # of `python -m package`, which multiprocessing leaves out
    data = spawn.get_preparation_data("")
    return next(((how, str(data[key])) for key, how in _KEYS.items() if data.get(key)), None)


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Processes started by this thread do not run the main module at their start."""
    with _starting:
        prepare, me = spawn.get_preparation_data, threading.get_ident()

        def without_main(name: str) -> dict[str, Any]:
            data = prepare(name)
            if threading.get_ident() == me:
                for key in _KEYS:
                    data.pop(key, None)
            return data

        spawn.get_preparation_data = without_main
        try:
            yield
        finally:
            spawn.get_preparation_data = prepare


def load(main: Main) -> None:
    """Run the parent's main module in this process, as multiprocessing would: it is `__mp_main__`, and `__main__`."""
    if main is None or main in _loaded:
        return
    how, where = main
    here: Any = process.current_process()
    here._inheriting = True  # noqa: SLF001 -- so that multiprocessing refuses to start more processes meanwhile
    try:
        if how == "name":
            content = runpy.run_module(where, run_name="__mp_main__", alter_sys=True)
        else:
            content = runpy.run_path(where, run_name="__mp_main__")
    finally:
        del here._inheriting  # noqa: SLF001 -- as above
    module = ModuleType("__mp_main__")
    module.__dict__.update(content)
    _loaded.add(main)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def imported_for_another() -> bool:
    """True while this process imports a main module for a call; what runs now lacks its `__name__` guard."""
    return getattr(process.current_process(), "_inheriting", False)


def app_reference(reference: str) -> str:
    """The app's reference, led to the main module where the app stands in the script that was started.

    Under the script's own name it would be imported a second time, with types that are not those of the call.
    """
    module, _, attribute = reference.partition(":")
    name = attribute.partition(".")[0]
    if hasattr(sys.modules.get(module), name) or not hasattr(sys.modules["__main__"], name):
        return reference
    if home_of(_InMain) != module:
        return reference
    return f"__main__:{attribute}"


class _InMain:
    __module__ = "__main__"
