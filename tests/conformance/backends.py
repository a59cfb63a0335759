"""The brokers and result backends that sit the exams here. A server is one more entry.

A store is a URL or whatever else names it; both factories are given the same one, so that a broker and a result backend
of one store are made for each other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
from camora.builtin.memory import MemoryBroker, MemoryResultBackend, MemoryStore
from camora.interfaces.broker import Broker
from camora.interfaces.results import ResultBackend
from camora.testing.clock import VirtualClock
from camora.testing.conformance import Subject

__all__ = ["BACKENDS", "Backend"]


@attrs.frozen(kw_only=True)
class Backend:
    """One kind of store. `examples` is how long it is hunted; `missing` says why it cannot be used here, if so."""

    name: str
    new_store: Callable[[Path], Any]
    broker: Callable[[Any], Broker]
    results: Callable[[Any], ResultBackend]
    subject: Callable[[Path], Subject]
    lease: float = 0.5
    examples: int = 10
    missing: Callable[[], str] = lambda: ""


def _memory_subject(_: Path) -> Subject:
    clock = VirtualClock()
    return Subject(broker=MemoryBroker(MemoryStore(clock)), clock=clock, pass_time=clock.advance, lease=10.0)


def _sqlite_url(folder: Path) -> str:
    # A power cut is not among the faults tried here, and waiting for the disk would take most of the time.
    return f"sqlite:///{folder}/{uuid4().hex}.db?synchronous=normal"


def _sql_broker(url: str) -> Broker:
    from camora_sql.broker import SqlBroker

    return SqlBroker(url)


def _sqlite_subject(folder: Path) -> Subject:
    from camora_sql.broker import SqlBroker

    clock = VirtualClock()
    broker = SqlBroker(_sqlite_url(folder), clock=clock)
    return Subject(broker=broker, clock=clock, pass_time=clock.advance, lease=10.0)


def _sql_results(url: str) -> ResultBackend:
    from camora_sql.results import SqlResultBackend

    return SqlResultBackend(url)


def _sqlite_missing() -> str:
    for module in ("camora_sql.broker", "camora_sql.results"):
        if importlib.util.find_spec(module) is None:
            return f"there is no {module}: install camora-sql"
    return ""


BACKENDS = [
    Backend(
        name="memory",
        new_store=lambda _: MemoryStore(),
        broker=MemoryBroker,
        results=MemoryResultBackend,
        subject=_memory_subject,
        lease=0.2,
        examples=100,
    ),
    Backend(
        name="sqlite",
        new_store=_sqlite_url,
        broker=_sql_broker,
        results=_sql_results,
        subject=_sqlite_subject,
        lease=0.3,
        examples=20,
        missing=_sqlite_missing,
    ),
]
