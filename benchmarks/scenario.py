"""What describes a scenario: its parameters, its metrics, and how it is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bench import Bench

__all__ = ["Metric", "Scenario"]


@dataclass(frozen=True)
class Metric:
    """One figure. The first of a scenario is the one that ratios and the choice of variants go by."""

    name: str
    title: str
    more_is_better: bool = True
    digits: int = 0


@dataclass(frozen=True)
class Scenario:
    """`params` are those of a full run; `quick` replaces some; `counts` names those that slow entrants divide."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Bench], Awaitable[dict[str, float]]]
    params: Mapping[str, Any]
    quick: Mapping[str, Any]
    counts: tuple[str, ...] = ()
    unfit: Callable[[Mapping[str, Any]], str] = field(default=lambda about: "")
    """Why the entrant that the catalog describes so cannot take part; "" where it can."""
    grows: bool = True
    """Fast entrants do more jobs; else slow ones do fewer, and no others do more."""
    chooses: bool = True
    """Tries the entrant's variants; else it takes the one that W2 chose, or the first."""
