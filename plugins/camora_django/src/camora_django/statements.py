"""Camora's statements on a connection of Django's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from camora_sql.dialects.base import Need, Row
from camora_sql.runner import Runner
from camora_sql.statements import Builder
from camora_sql.store import Store
from camora_sql.wakeup import Topic
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["DjangoDriver", "DjangoRunner"]

_NUMBERED = re.compile(r"\$(\d+)")


class DjangoDriver:
    """A connection of Django's as camora-sql's dialects use one; statements go through Django's cursors.

    So they are in its logs, are wrapped by `execute_wrapper`, and are refused in a transaction that is broken. Raises
    what Django raises.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection

    def rows(self, text: str, values: Sequence[Any] = ()) -> Sequence[Row]:
        """Run a statement; all its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(*_in_djangos_style(text, values))
            return list(cursor.fetchall())

    def change(self, text: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed."""
        with self._connection.cursor() as cursor:
            cursor.execute(*_in_djangos_style(text, values))
            return int(cursor.rowcount)

    def close(self) -> None:
        """It is Django's to close."""

    def abort(self) -> None:
        """It is Django's to close."""


def _in_djangos_style(text: str, values: Sequence[Any]) -> tuple[str, Sequence[Any] | None]:
    """With `%s` in place of numbers and question marks: Django's logs know of nothing else."""
    if not values:
        return text, None
    text = text.replace("%", "%%")
    if order := [int(number) - 1 for number in _NUMBERED.findall(text)]:
        return _NUMBERED.sub("%s", text), [values[place] for place in order]
    return text.replace("?", "%s"), values


class DjangoRunner(Runner):
    """Statements of camora-sql on a connection of Django's, in the thread that it belongs to."""

    def __init__(self, store: Store, connection: BaseDatabaseWrapper) -> None:
        self.driver = DjangoDriver(connection)
        self._statements = store.statements
        self.announced: set[Topic] = set()

    def rows(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> Sequence[Row]:
        """Run it; all its rows."""
        text, picks = self._statements(build, size)
        return self.driver.rows(text, values if picks is None else [values[place] for place in picks])

    def change(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> int:
        """Run it; how many rows it changed."""
        text, picks = self._statements(build, size)
        return self.driver.change(text, values if picks is None else [values[place] for place in picks])

    def call(self, text: str, values: Sequence[Any]) -> Sequence[Row]:
        """Run a statement in the database's own words; all its rows."""
        return self.driver.rows(text, values)

    def flushes(self, need: Need) -> bool:
        """As Django's connection does: the transaction is not ours."""
        return True

    def announce(self, topic: Topic) -> None:
        """Left to the commit."""
        self.announced.add(topic)
