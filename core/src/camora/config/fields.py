"""What the authors of settings classes wrote about them, for those who read a schema."""

from __future__ import annotations

import ast
import inspect
from typing import Any

__all__ = ["field_texts", "first_paragraph"]


def first_paragraph(cls: type[Any]) -> str:
    """The first paragraph of a class's own docstring, in one line; empty without one."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]
    return " ".join(text.split())


def field_texts(cls: type[Any]) -> dict[str, str]:
    """The texts that stand below the fields in the source, by field; those of base classes, too.

    Empty where the source is not to be had.
    """
    found: dict[str, str] = {}
    for kind in reversed(cls.__mro__[:-1]):
        try:
            [body] = ast.parse(inspect.cleandoc(inspect.getsource(kind))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        if isinstance(body, ast.ClassDef):
            found.update(_texts(body))
    return found


def _texts(body: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            found[field.target.id] = " ".join(below.value.value.split())
    return found
