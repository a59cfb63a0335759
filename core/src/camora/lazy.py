"""Packages whose names are imported when they are first used.

`import camora` alone is what the command line, and every plugin's module, pays before it knows what it is for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["names_of"]


def names_of(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A module-level `__getattr__` for `package`: `names` says, for each module, which names come from it."""
    homes = {name: module for module, members in names.items() for name in members}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # so that it is asked for once
        return value

    return get
