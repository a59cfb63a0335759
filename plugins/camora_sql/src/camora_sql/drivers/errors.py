"""What servers and their connections say, the same for every driver."""

from __future__ import annotations

__all__ = ["VALUES", "ServerError", "told", "unsent"]

_TEXTS = frozenset({"22021", "22P05"})  # a NUL, or a character that the database's encoding lacks
_SIZES = frozenset({"22001", "22003"})  # a text or a number that the column does not hold
VALUES = _TEXTS | _SIZES
"""Codes that say what is wrong with a value."""


class ServerError(Exception):
    """A statement failed, or the connection did.

    `code` is the server's own, or the driver's (empty where neither has one). `broken`: the connection is gone, and
    what became of the statement is not known, unless `sent` is False: it was gone before. `connecting`: there was no
    connection yet. The text is one line.
    """

    def __init__(
        self, text: str, *, code: str = "", broken: bool = False, connecting: bool = False, sent: bool = True
    ) -> None:
        super().__init__(" ".join(text.split()))
        self.code = code
        self.broken = broken
        self.connecting = connecting
        self.sent = sent


def unsent() -> ServerError:
    """A statement has found its connection gone."""
    # Not told by a code: drivers have codes of their own, too, for connections that end while they wait for an answer.
    return ServerError("the connection is gone", broken=True, sent=False)


def told(text: str, *, code: str, broken: bool) -> Exception:
    """What a server's complaint is: of a value, which is the caller's, or of anything else."""
    if code in _TEXTS:
        return UnicodeError(text)
    if code in _SIZES:
        return OverflowError(text)
    return ServerError(text, code=code, broken=broken)
