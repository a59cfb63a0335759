"""The memory broker and result backend: real ones, in one process, that lose everything when it ends."""

from __future__ import annotations

from camora.builtin.memory.broker import MemoryBroker
from camora.builtin.memory.journal import MemoryJournal
from camora.builtin.memory.names import NamedStores
from camora.builtin.memory.results import MemoryResultBackend
from camora.builtin.memory.schedules import MemoryScheduleStore
from camora.builtin.memory.store import MemoryStore
from camora.builtin.memory.workflows import MemoryWorkflowStore
from camora.provider import MadeFrom

__all__ = [
    "MemoryBroker",
    "MemoryJournal",
    "MemoryResultBackend",
    "MemoryScheduleStore",
    "MemoryStore",
    "MemoryWorkflowStore",
    "make_broker",
    "make_results",
    "make_schedules",
]

# The one thing here that outlives any app: a name in `memory://NAME` means the same store for every app of the
# process, as the name of a file would, so no app can own the table. It holds its stores weakly, and a store is only
# ever reached by naming it.
_STORES = NamedStores()


def make_broker(made: MadeFrom) -> MemoryBroker:
    """A broker for `memory://` (a store of its own) or `memory://NAME` (shared in this process by name)."""
    store, name = _STORES.of_url(made.url)
    return MemoryBroker(store, name=name)


def make_results(made: MadeFrom) -> MemoryResultBackend:
    """The same for results; give `MemoryResultBackend(broker.store)` instead to settle into an unnamed store."""
    return MemoryResultBackend(_STORES.of_url(made.url)[0])


def make_schedules(made: MadeFrom) -> MemoryScheduleStore:
    """The same for schedules."""
    return MemoryScheduleStore(_STORES.of_url(made.url)[0])
