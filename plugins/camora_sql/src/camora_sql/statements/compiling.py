"""From builders to the texts that the driver executes."""

from __future__ import annotations

from camora_sql.dialects.base import Dialect
from camora_sql.statements.parts import Builder, Shape

__all__ = ["Statements"]


class Statements:
    """The texts of one dialect's statements, compiled when they are first asked for. Safe to use from any thread."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._texts: dict[tuple[Builder, int], str] = {}
        self._shapes: dict[tuple[Builder, int], Shape] = {}

    def __call__(self, build: Builder, size: int = 1) -> str:
        """The text for this many rows, ids or queues."""
        text = self._texts.get((build, size))
        if text is None:
            text = self._texts[build, size] = self._compile(build, size)
        return text

    def shape(self, build: Builder, size: int = 1) -> Shape:
        """The statement itself, for a connection that compiles it in its own way, and the order of its values."""
        shape = self._shapes.get((build, size))
        if shape is None:
            shape = self._shapes[build, size] = build(self._dialect, size)
        return shape

    def _compile(self, build: Builder, size: int) -> str:
        statement, order = build(self._dialect, size)
        compiled = statement.compile(dialect=self._dialect.compiler())  # type: ignore[attr-defined]
        # A builder that states another order than its statement has would bind values to wrong columns.
        assert list(compiled.positiontup or ()) == list(order), f"{build.__name__}: {compiled.positiontup}"
        return str(compiled)
