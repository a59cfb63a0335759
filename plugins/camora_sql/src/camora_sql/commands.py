"""`camora sql …`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import attrs
import cyclopts
from camora.errors import ConfigurationError
from camora.settings import mask_url

from camora_sql.blocking import BlockingSession
from camora_sql.databases import databases_of
from camora_sql.errors import migrate_command, newer
from camora_sql.opening import fits, prepare
from camora_sql.schema import HEAD
from camora_sql.session import Session
from camora_sql.store import Store

__all__ = ["build"]

_URL = "CAMORA_BROKER__URL"
_WHERE = cyclopts.Group("Which databases", sort_key=100)

_Since = Annotated[
    str, cyclopts.Parameter(name="--since", help="The revision that is there; none for an empty database.")
]


@cyclopts.Parameter(name="*")
@attrs.frozen(kw_only=True)
class Which:
    """The databases that a command is about: one by its URL, or all of an app's."""

    url: Annotated[
        str | None,
        cyclopts.Parameter(
            name="--url",
            group=_WHERE,
            help="sqlite:///camora.db, postgresql://user@host/database, mariadb://user@host/database; "
            f"default: those of the app, or what {_URL} says.",
        ),
    ] = None
    app: Annotated[
        str | None,
        cyclopts.Parameter(
            name=["--app", "-a"],
            group=_WHERE,
            env_var="CAMORA_APP",
            show_env_var=False,
            help="module:attribute of the app; default: `app =` of camora.toml.",
        ),
    ] = None
    config: Annotated[
        Path | None,
        cyclopts.Parameter(
            name="--config", group=_WHERE, help="The camora.toml to use; default: found upwards from here."
        ),
    ] = None
    profile: Annotated[
        str | None, cyclopts.Parameter(name="--profile", group=_WHERE, help="Lay this profile of camora.toml over it.")
    ] = None


_ALL = Which()


def build(find_app: Callable[..., Any]) -> cyclopts.App:
    """The commands; the function finds an app as the core's commands do."""
    app = cyclopts.App(name="sql", help="The schema of SQL databases.")

    @app.command
    def migrate(*, which: Which = _ALL) -> None:
        """Bring the schema to the newest revision; may be repeated, and run anywhere at the same time."""
        for name, store in _stores(which, find_app).items():
            _say(name, _migrate(store))

    @app.command
    def status(*, which: Which = _ALL) -> int:
        """Show which revision the schema has; exits with 1 when it is not the newest. Creates nothing."""
        worst = 0
        for name, store in _stores(which, find_app).items():
            code, text = _status(store)
            _say(name, text)
            worst = max(worst, code)
        return worst

    @app.command
    def sql(*, since: _Since = "", which: Which = _ALL) -> None:
        """Print the statements that make the schema, or bring it up to date, for somebody else to run.

        Connects nowhere.
        """
        for name, store in _stores(which, find_app).items():
            if name:
                print(f"-- {name} {store.dialect.address}")  # noqa: T201 -- a command's answer
            _print(store, since)

    return app


def _stores(which: Which, find_app: Callable[..., Any]) -> dict[str, Store]:
    """By the sections of the app's settings that they come from; one that was named has none."""
    if which.url is not None:
        return {"": _store(which.url)}
    try:
        app = find_app(which.app, config=which.config, profile=which.profile)
    except ConfigurationError as error:
        url = os.environ.get(_URL)
        if url is not None and which == _ALL:
            return {"": _store(url)}
        raise ConfigurationError(f"{error}; or name a database: --url sqlite:///camora.db") from error
    found = databases_of(app)
    if not found:
        raise ConfigurationError(
            f"the app {app.name!r} has no SQL database (its broker is {app.broker!r}); name one: --url sqlite:///camora.db"
        )
    return {f"[{section}]": store for section, store in found.items()}


def _store(url: str) -> Store:
    if "://" not in url:
        raise ConfigurationError(f"{mask_url(url)!r} is no database URL; write --url sqlite:///camora.db")
    return Store(url)


def _say(name: str, text: str) -> None:
    print(f"{name} {text}".strip())  # noqa: T201 -- a command's answer


def _state(session: Session, store: Store) -> tuple[str | None, bool]:
    """The revision, and whether this version works with it."""
    revision = store.dialect.revision(session.driver)
    return revision, revision is not None and fits(session, revision)


def _migrate(store: Store) -> str:
    session = BlockingSession(store)
    try:
        before, _ = session.read(lambda session: _state(session, store))
        session.run(lambda session: prepare(session, store))
    finally:
        session.close()
    if before is not None and before > HEAD:
        return _newer(store, before)  # it fits, or preparing it would have said that it does not
    done = "is up to date" if before == HEAD else f"upgraded from {before or 'nothing'} to {HEAD}"
    return f"{store.dialect.label}: schema {done}"


def _status(store: Store) -> tuple[int, str]:
    """What the process answers with, and the text."""
    label = store.dialect.label
    if not store.dialect.exists():
        return 1, f"{label}: does not exist yet; the first use makes it"
    session = BlockingSession(store)
    try:
        revision, fitting = session.read(lambda session: _state(session, store))
    finally:
        session.close()
    if revision == HEAD:
        return 0, f"{label}: revision {HEAD}, the newest"
    if revision is not None and revision > HEAD:
        if not fitting:
            raise newer(label, revision)
        return 0, _newer(store, revision)
    return 1, (
        f"{label}: revision {revision or 'none'}, the newest is {HEAD}; "
        f"the next use upgrades it, or now: {migrate_command(store.dialect)}"
    )


def _newer(store: Store, revision: str) -> str:
    return f"{store.dialect.label}: revision {revision}, of a newer camora-sql; this one (up to {HEAD}) works with it"


def _print(store: Store, since: str) -> None:
    from camora_sql.migrating import known, upgrade_statements

    if since and not known(since):
        raise ConfigurationError(f"--since {since}: there is no such revision; the newest is {HEAD}")
    lines = [
        "BEGIN;",
        *(f"\n{statement};" for statement in upgrade_statements(store.dialect, since or None)),
        "\nCOMMIT;",
    ]
    print("\n".join(lines))  # noqa: T201 -- a command's answer
