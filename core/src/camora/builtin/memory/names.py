"""Named memory stores: `memory://NAME` is one store for all in this process who name it."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from camora.builtin.memory.store import MemoryStore

__all__ = ["NamedStores"]


class NamedStores:
    """Hands out one store for each name; a store goes when the last broker and result backend on it have gone."""

    def __init__(self) -> None:
        self._stores: WeakValueDictionary[str, MemoryStore] = WeakValueDictionary()
        self._lock = threading.Lock()

    def of_url(self, url: str | None) -> tuple[MemoryStore, str]:
        """The store of `memory://NAME`, and its name; a new one of its own for `memory://`."""
        parts = urlsplit(url or "")
        name = (parts.netloc + parts.path).strip("/")
        if not name:
            return MemoryStore(), ""
        with self._lock:
            store = self._stores.get(name)
            if store is None:
                store = self._stores[name] = MemoryStore()
            return store, name
