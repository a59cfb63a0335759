"""Bringing a database's schema to the newest revision, with alembic, under the database's own lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from camora_sql.errors import newer
from camora_sql.schema import HEAD
from camora_sql.session import Session
from camora_sql.store import Store

__all__ = ["known", "migrate"]


def _config() -> Config:
    config = Config()
    # The folder itself, not the package's name: the same from a wheel and from a checkout.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def known(revision: str) -> bool:
    """Whether this version of the package has such a revision."""
    try:
        return ScriptDirectory.from_config(_config()).get_revision(revision) is not None
    except CommandError:
        return False


def migrate(session: Session, store: Store) -> list[str]:
    """Upgrade to the newest revision; what was done, one line each, nothing when it was there already.

    All in one transaction that holds the database's lock: of many who begin at once, one does it, and a process that
    dies half-way leaves nothing behind. Raises `ConfigurationError` for a revision that is not known here.
    """
    dialect = store.dialect

    def upgrade(session: Session) -> list[str]:
        # Looked at again, under the lock: somebody may have been quicker.
        before = dialect.revision(session.connection)
        if before == HEAD:
            return []
        if before is not None and not known(before):
            raise newer(dialect.label, before)
        _upgrade(session.connection, store)
        return [f"{before or 'nothing'} -> {HEAD}"]

    return session.write(upgrade)


def _upgrade(raw: Any, store: Store) -> None:
    # Alembic speaks through SQLAlchemy's engine, over the very connection that holds the lock.
    engine = create_engine(f"{store.dialect.compiler().name}://", creator=lambda: _Lent(raw), poolclass=StaticPool)
    with engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


class _Lent:
    """A raw connection whose transaction and life belong to somebody else."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def commit(self) -> None:
        """Left to the owner."""

    def rollback(self) -> None:
        """Left to the owner."""

    def close(self) -> None:
        """Left to the owner."""
