"""Bringing a database's schema to the newest revision, under the database's own lock."""

from __future__ import annotations

from pathlib import Path

from camora_sql.dialects.base import Dialect
from camora_sql.errors import newer
from camora_sql.quiet import quiet
from camora_sql.schema import HEAD
from camora_sql.session import Session
from camora_sql.store import Store

with quiet():
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError

__all__ = ["known", "migrate", "upgrade_statements"]

_BASE = "base"


class _Statements(list[str]):
    """Takes what alembic writes to a file, which is one statement at a time."""

    def write(self, text: str) -> None:
        statement = text.strip().removesuffix(";").rstrip()
        if statement and not all(line.startswith("--") for line in statement.splitlines()):
            self.append(statement)

    def flush(self) -> None:
        """There is nothing to flush."""


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


def _between(since: str | None, until: str) -> list[str]:
    """The revisions after `since`, oldest first."""
    found = ScriptDirectory.from_config(_config()).iterate_revisions(until, since or _BASE)
    return [script.revision for script in reversed(list(found))]


def upgrade_statements(dialect: Dialect, since: str | None = None, until: str = HEAD) -> list[str]:
    """What brings a schema of revision `since`, or an empty database, to `until`. No I/O on any database."""
    config, statements = _config(), _Statements()
    config.attributes.update(dialect=dialect.name, tables=dialect.tables, statements=statements)
    with quiet():
        command.upgrade(config, f"{since or _BASE}:{until}", sql=True)
    return list(statements)


def migrate(session: Session, store: Store, until: str = HEAD) -> list[str]:
    """Upgrade to this revision; what was done, one line each, nothing when it was there already.

    All in one transaction that holds a lock of the database's: of many who begin at once, one does it, and a process
    that dies half-way leaves nothing behind. Raises `ConfigurationError` for a revision that is not known here.
    """
    dialect = store.dialect

    def upgrade(session: Session) -> list[str]:
        session.lock("schema")
        # Looked at under the lock: somebody may have been quicker.
        before = dialect.revision(session.driver)
        if before == until:
            return []
        if before is not None and not known(before):
            raise newer(dialect.label, before)
        # One revision at a time: where they are not undone together, one that was left half-way is known by its name.
        since = before
        for revision in _between(before, until):
            dialect.change_schema(session.driver, upgrade_statements(dialect, since, revision), revision)
            since = revision
        return [f"{before or 'nothing'} -> {until}"]

    return session.write(upgrade)
