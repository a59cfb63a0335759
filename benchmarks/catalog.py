"""The entrants, by name."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from benchmarks.entrant import Entrant, InProcessEntrant

__all__ = ["describe", "load", "names"]

_FOLDER = Path(__file__).parent / "entrants"


def names() -> list[str]:
    """All there are."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def load(name: str) -> type[Entrant]:
    """The entrant's class; imports the system under test."""
    entrant: type[Entrant] = importlib.import_module(f"benchmarks.entrants.{name}").ENTRANT
    return entrant


def describe(name: str) -> dict[str, Any]:
    """What the runner wants to know of it. Raises `ImportError` where the system is not installed."""
    entrant = load(name)
    for module in entrant.requires:
        importlib.import_module(module)
    return {
        "server": entrant.server,
        "lacks": dict(entrant.lacks),
        "guarantee": entrant.guarantee,
        "variants": {key: dict(options) for key, options in entrant.variants.items()},
        "version": importlib.metadata.version(entrant.distribution) if entrant.distribution else "",
        "slow": entrant.slow,
        "forks": entrant.forks,
        "delays": entrant.delay_many is not Entrant.delay_many,
        "chords": entrant.chord is not Entrant.chord,
        "chains": entrant.chain is not Entrant.chain,
        "in_process": issubclass(entrant, InProcessEntrant),
    }
