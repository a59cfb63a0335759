"""`camora sql …`."""

from __future__ import annotations

from typing import Annotated

import cyclopts
from camora.errors import ConfigurationError
from camora.settings import mask_url

from camora_sql.blocking import BlockingSession
from camora_sql.errors import newer
from camora_sql.opening import prepare
from camora_sql.schema import HEAD
from camora_sql.store import Store

__all__ = ["build"]

_Url = Annotated[
    str,
    cyclopts.Parameter(
        name="--url",
        help="The database: sqlite:///camora.db, postgresql://user@host/database, mariadb://user@host/database",
        env_var="CAMORA_BROKER__URL",
    ),
]
_Since = Annotated[
    str, cyclopts.Parameter(name="--since", help="The revision that is there; none for an empty database.")
]


def build() -> cyclopts.App:
    """The commands."""
    app = cyclopts.App(name="sql", help="The schema of SQL databases.")
    app.command(migrate)
    app.command(status)
    app.command(sql)
    return app


def _store(url: str) -> Store:
    if "://" not in url:
        raise ConfigurationError(f"{mask_url(url)!r} is no database URL; write --url sqlite:///camora.db")
    return Store(url)


def _revision(session: BlockingSession, store: Store) -> str | None:
    return session.read(lambda session: store.dialect.revision(session.driver))


def migrate(*, url: _Url) -> None:
    """Bring the schema to the newest revision; may be repeated, and run anywhere at the same time."""
    store = _store(url)
    session = BlockingSession(store)
    try:
        before = _revision(session, store)
        session.run(lambda session: prepare(session, store))
    finally:
        session.close()
    done = "is up to date" if before == HEAD else f"upgraded from {before or 'nothing'} to {HEAD}"
    print(f"{store.dialect.label}: schema {done}")  # noqa: T201 -- a command's answer


def status(*, url: _Url) -> int:
    """Show which revision the schema has; exits with 1 when it is not the newest. Creates nothing."""
    store = _store(url)
    if not store.dialect.exists():
        print(f"{store.dialect.label}: does not exist yet; the first use makes it")  # noqa: T201
        return 1
    session = BlockingSession(store)
    try:
        revision = _revision(session, store)
    finally:
        session.close()
    if revision is not None and revision > HEAD:
        raise newer(store.dialect.label, revision)
    if revision == HEAD:
        print(f"{store.dialect.label}: revision {HEAD}, the newest")  # noqa: T201
        return 0
    print(  # noqa: T201
        f"{store.dialect.label}: revision {revision or 'none'}, the newest is {HEAD}; "
        f"the next use upgrades it, or now: camora sql migrate --url {mask_url(url)}"
    )
    return 1


def sql(*, url: _Url, since: _Since = "") -> None:
    """Print the statements that make the schema, or bring it up to date, for somebody else to run. Connects nowhere."""
    from camora_sql.migrating import known, upgrade_statements

    store = _store(url)
    if since and not known(since):
        raise ConfigurationError(f"--since {since}: there is no such revision; the newest is {HEAD}")
    print("BEGIN;")  # noqa: T201
    for statement in upgrade_statements(store.dialect, since or None):
        print(f"\n{statement};")  # noqa: T201
    print("\nCOMMIT;")  # noqa: T201
