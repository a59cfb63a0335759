"""From builders to the texts that the driver executes."""

from __future__ import annotations

from collections.abc import Sequence

from camora_sql.dialects.base import Dialect
from camora_sql.statements.parts import Builder, Shape

__all__ = ["Compiled", "Statements"]

Compiled = tuple[str, Sequence[int] | None]


class Statements:
    """The texts of one dialect's statements, compiled when they are first asked for. Safe to use from any thread."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._compiled: dict[tuple[Builder, int], Compiled] = {}
        self._shapes: dict[tuple[Builder, int], Shape] = {}

    def __call__(self, build: Builder, size: int = 1) -> Compiled:
        """The text for this many rows, ids or queues, and the places of the values it wants; None: all, in order."""
        compiled = self._compiled.get((build, size))
        if compiled is None:
            compiled = self._compiled[build, size] = self._compile(build, size)
        return compiled

    def shape(self, build: Builder, size: int = 1) -> Shape:
        """The statement itself, for a connection that compiles it in its own way, and the order of its values."""
        shape = self._shapes.get((build, size))
        if shape is None:
            shape = self._shapes[build, size] = build(self._dialect, size)
        return shape

    def _compile(self, build: Builder, size: int) -> Compiled:
        statement, order = build(self._dialect, size)
        compiled = statement.compile(dialect=self._dialect.compiler())  # type: ignore[attr-defined]
        wanted, given = list(compiled.positiontup or ()), list(order)
        if wanted == given:
            return str(compiled), None
        # Where places have numbers, a value that occurs twice is bound once; and not all say limit and offset alike.
        assert set(wanted) == set(given), f"{build.__name__}: {wanted}"
        return str(compiled), [given.index(name) for name in wanted]
