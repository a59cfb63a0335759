"""Where a member stands in what was composed, in words: for who is told that it is wrong."""

from __future__ import annotations

import msgspec
from camora.errors import DispatchError, EncodeError, MessageTooLarge, PayloadError

__all__ = ["Spot", "told_where"]


class Spot(msgspec.Struct, frozen=True, gc=False):
    """One of several in something, which may itself be one of several. Read as text only when something is wrong."""

    what: str
    """With a place for `which`."""
    which: int | str
    outer: Spot | None

    def __str__(self) -> str:
        own = self.what.format(self.which)
        return own if self.outer is None else f"{own} in {self.outer}"


def told_where(error: EncodeError | PayloadError | MessageTooLarge, spot: Spot) -> DispatchError:
    """The same error, with the place of the member that it is about before its text."""
    text = f"{spot}: {error}"
    if isinstance(error, PayloadError):
        return PayloadError(text, task=error.task, field=error.field)
    if isinstance(error, EncodeError):
        return EncodeError(text, path=error.path)
    return MessageTooLarge(text, size=error.size, limit=error.limit)
