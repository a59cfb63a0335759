"""Why a value does not fit its type: one place in it, and what is wrong there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from camora.interfaces.types import Misfit

__all__ = ["Placed", "explain", "misfitting"]


class Placed(Exception):
    """An error in an item of a collection: `place` is its place, as `[3]`."""

    def __init__(self, place: str, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.place = place
        self.cause = cause


def explain(error: BaseException, path: str) -> tuple[str, str]:
    """The first place in `path` that a structuring error is about, and what is wrong there."""
    if isinstance(error, Placed):
        return explain(error.cause, f"{path}{error.place}")
    if isinstance(error, Misfit):
        (spot, why), *more = error.places
        return f"{path}{spot}", "; ".join([why, *(_said(f"{path}{spot}", why) for spot, why in more)])
    from cattrs.errors import AttributeValidationNote, BaseValidationError, ForbiddenExtraKeysError

    if isinstance(error, BaseValidationError):
        inner = error.exceptions[0]
        for note in getattr(inner, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                return explain(inner, f"{path}.{note.name}")
            if hasattr(note, "index"):
                return explain(inner, f"{path}[{note.index!r}]")
        return explain(inner, path)
    if isinstance(error, ForbiddenExtraKeysError):
        return path, f"has unknown fields {', '.join(sorted(map(repr, error.extra_fields)))}"
    if isinstance(error, KeyError):
        return path if path.endswith(f".{error.args[0]}") else f"{path}.{error.args[0]}", "is missing"
    if isinstance(error, RecursionError):
        return path, "is nested too deeply"
    return path, str(error) or type(error).__name__


def _said(path: str, why: str) -> str:
    return ": ".join(filter(None, (path.removeprefix("."), why)))


def misfitting(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same hook, whose errors are all a `Misfit`."""

    def convert(value: Any) -> Any:
        try:
            return hook(value)
        except Misfit:
            raise
        except Exception as error:  # whatever a hook raises means that the value does not fit
            raise Misfit([explain(error, "")]) from error

    return convert
