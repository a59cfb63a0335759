"""Tables for settings that have changed since the first `migrate`: another prefix, schema, or broker.

Django notes that a migration was applied, and not under which names; so it would never run again.
"""

from __future__ import annotations

import sys
from typing import Any

from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from camora_django.schema import UpgradeSchema, store_of
from camora_django.statements import DjangoDriver

__all__ = ["make_tables_where_they_are_meant"]

_LABEL = "camora_django"


def make_tables_where_they_are_meant(using: str, verbosity: int = 1, stdout: Any = None, **options: Any) -> None:
    """After each `migrate`: do again what its migrations have done already, if the tables are not there.

    Those of other names, and the jobs in them, stay. Raises `CommandError`.
    """
    del options
    store = store_of(using)
    connection = connections[using]
    if store is None or store.dialect.revision(DjangoDriver(connection)) is not None:
        return
    applied = sorted(name for label, name in MigrationRecorder(connection).applied_migrations() if label == _LABEL)
    if not applied:
        return  # their turn will come
    known = MigrationLoader(connection).disk_migrations
    for name in applied:
        for operation in getattr(known.get((_LABEL, name)), "operations", ()):
            if isinstance(operation, UpgradeSchema):
                with connection.schema_editor(atomic=True) as editor:
                    operation.upgrade(editor)
    if verbosity:
        print(
            f"  Made Camora's tables under the names that settings.CAMORA gives now ({store.dialect.label}). "
            "Tables of former names, and jobs in them, are where they were.",
            file=stdout or sys.stdout,
        )
