"""Changing the schema where each such statement is committed by itself.

How far somebody came is noted in the table of revisions, in a row that is no revision: so whoever comes next goes on
there. All of it happens under a lock of the server's, which ends with the connection that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.schema import CreateTable

from camora_sql.dialects.base import Dialect, Driver
from camora_sql.drivers.errors import ServerError

__all__ = ["change_schema", "is_note"]

_MARK = "~"
_DONE = frozenset({"1007", "1008", "1022", "1050", "1051", "1060", "1061", "1062", "1091"})
"""It is there already, or gone already."""
_COMMITS = ("CREATE", "ALTER", "DROP")
"""How statements begin that end a transaction."""


def is_note(version: Any) -> bool:
    """Whether that is how far somebody came, not a revision."""
    return str(version).startswith(_MARK)


def change_schema(dialect: Dialect, driver: Driver, texts: Sequence[str], step: str) -> None:
    """Run the statements that lead to a revision, or what is left of them. Ends in a transaction that ends the note."""
    versions = dialect.tables.version
    driver.change(_create(dialect, versions))
    done, began = _noted(dialect, driver, step), True
    if done is None:
        done, began = 0, False
        driver.change(f"INSERT INTO {versions.name} (version_num) VALUES (%s)", [_note(step, 0)])  # noqa: S608
    for place in range(done, len(texts)):
        text = texts[place]
        # What names the revision at the end, and the end of the note, stand together.
        ends = place + 1 == len(texts) and not text.lstrip().startswith(_COMMITS)
        if ends:
            driver.change("START TRANSACTION")
        try:
            # Alembic begins with the table that is there for the note already.
            if not text.lstrip().startswith(f"CREATE TABLE {versions.name} "):
                driver.change(text)
        except ServerError as error:
            # The last one may have been committed, and not noted any more.
            if not (began and place == done and error.code in _DONE):
                raise
        if ends:
            break
        driver.change(
            f"UPDATE {versions.name} SET version_num = %s WHERE version_num = %s",  # noqa: S608 -- a plain name
            [_note(step, place + 1), _note(step, place)],
        )
    else:
        driver.change("START TRANSACTION")
    driver.change(f"DELETE FROM {versions.name} WHERE version_num LIKE %s", [f"{_MARK}%"])  # noqa: S608


def _note(step: str, done: int) -> str:
    return f"{_MARK}{step}:{done}"


def _create(dialect: Dialect, table: Any) -> str:
    return str(CreateTable(table, if_not_exists=True).compile(dialect=dialect.compiler()))


def _noted(dialect: Dialect, driver: Driver, step: str) -> int | None:
    """How many statements of this step were run; None for none."""
    name = dialect.tables.version.name
    versions = [str(row[0]) for row in driver.rows(f"SELECT version_num FROM {name}")]  # noqa: S608
    notes = [version for version in versions if is_note(version)]
    for note in notes:
        of, _, done = note.removeprefix(_MARK).rpartition(":")
        if of == step:
            return int(done)
    if notes:
        if len(notes) == len(versions):
            # Somebody was making the schema in another way, and it was never used.
            for table in reversed(dialect.tables.metadata.sorted_tables):
                driver.change(f"DROP TABLE IF EXISTS {table.name}")
        driver.change(f"DELETE FROM {name} WHERE version_num LIKE %s", [f"{_MARK}%"])  # noqa: S608
    return None
