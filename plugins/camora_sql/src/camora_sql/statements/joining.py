"""What is asked and done first in a transaction of somebody else's."""

from __future__ import annotations

from sqlalchemy import false, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.statements.parts import Shape

__all__ = ["hold", "read_revision"]


def read_revision(dialect: Dialect, size: int) -> Shape:
    """The revision of the tables."""
    t = dialect.tables
    # The least: what is no revision, but the note of somebody who is changing the schema, comes after digits.
    return select(t.version.c.version_num).order_by(t.version.c.version_num), ()


def hold(dialect: Dialect, size: int) -> Shape:
    """Begin to write, without writing anything."""
    t = dialect.tables
    return update(t.jobs).values(cancel=t.jobs.c.cancel).where(false()), ()
