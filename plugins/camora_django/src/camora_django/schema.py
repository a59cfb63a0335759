"""The operation of migrations: camora-sql's own schema, made over Django's connection."""

from __future__ import annotations

from typing import Any

from camora_sql.migrating import known, upgrade_statements
from camora_sql.store import Store
from django.core.management.base import CommandError
from django.db import Error
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from camora_django.publishing import explained
from camora_django.statements import DjangoDriver

__all__ = ["UpgradeSchema"]

_HOLD = "DELETE FROM django_migrations WHERE 1 = 0"


class UpgradeSchema(Operation):
    """Brings Camora's tables to a revision of camora-sql's, from whatever is there.

    Tables that Camora has made itself, or that are newer, are left as they are. Other databases than
    the broker's are none of its business. Undoing it leaves the tables, and the jobs in them, where they are.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, revision: str) -> None:
        self.revision = revision

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """As it is written in a migration."""
        return type(self).__name__, [self.revision], {}

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """It changes no models."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Upgrade, under the lock that Camora's own upgrades take."""
        self.upgrade(schema_editor)

    def upgrade(self, schema_editor: BaseDatabaseSchemaEditor) -> None:
        """The same without any state. Raises `CommandError`, which is one line, for what the database refuses."""
        alias = schema_editor.connection.alias
        store = store_of(alias)
        if store is None:
            return
        try:
            self._upgrade(store, schema_editor)
        except Error as error:
            raise CommandError(str(explained(store, alias, error))) from error

    def _upgrade(self, store: Store, schema_editor: BaseDatabaseSchemaEditor) -> None:
        dialect, driver = store.dialect, DjangoDriver(schema_editor.connection)
        before = None
        if not schema_editor.collect_sql:
            if dialect.blocking:
                # SQLite's one writer, so that no worker makes the tables after the look at them.
                driver.change(_HOLD)
            dialect.lock(driver, "schema")
            before = dialect.revision(driver)
        if before is not None and (not known(before) or before >= self.revision):
            return
        for statement in upgrade_statements(dialect, before, self.revision):
            schema_editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """The tables stay."""

    def describe(self) -> str:
        """In the words of `migrate --plan`."""
        return f"Bring Camora's tables to revision {self.revision}"


def store_of(alias: str) -> Store | None:
    """The broker's store, if that is in this database of Django's."""
    import camora_django
    from camora_django.broker import DjangoBroker
    from camora_django.refusing import RefusingBroker

    broker = camora_django.app.broker
    if isinstance(broker, RefusingBroker):
        raise broker.error
    return broker.database if isinstance(broker, DjangoBroker) and broker.alias == alias else None
