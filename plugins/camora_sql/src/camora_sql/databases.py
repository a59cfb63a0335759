"""The SQL databases of an app, each with the section of its settings. Light: imports nothing of SQLAlchemy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camora_sql.store import Store

__all__ = ["databases_of"]


def databases_of(app: Any) -> dict[str, Store]:
    """By section: `broker`, `results`, `outbox`. What is another one's, too, stands under the first."""
    outbox = None if app.outbox is None else app.outbox.broker
    parts: dict[str, Any] = {"broker": app.broker, "results": app.results, "outbox": outbox}
    found: dict[str, Store] = {}
    known = set()
    for section, given in parts.items():
        if not _is_ours(given):
            continue
        store: Store = given.database
        address = store.dialect.url, store.settings.prefix
        if address not in known:
            known.add(address)
            found[section] = store
    return found


def _is_ours(store: Any) -> bool:
    # By the name of its class, which says it without the import of anything.
    return any(kind.__module__ in ("camora_sql.broker", "camora_sql.results") for kind in type(store).__mro__)
