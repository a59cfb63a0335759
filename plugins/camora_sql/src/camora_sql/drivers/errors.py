"""What servers and their connections say, the same for every driver."""

from __future__ import annotations

__all__ = ["NEVER_SENT", "ServerError", "told"]

NEVER_SENT = "08003"
"""The code for a statement that found its connection gone."""

_TEXTS = frozenset({"22021", "22P05"})  # a NUL, or a character that the database's encoding lacks
_NUMBERS = frozenset({"22003"})


class ServerError(Exception):
    """A statement failed, or the connection did.

    `code` is the server's own (SQLSTATE; empty where it is the client that gave up). `broken`: the connection is gone,
    and what became of the statement is not known. `connecting`: there was no connection yet. The text is one line.
    """

    def __init__(self, text: str, *, code: str = "", broken: bool = False, connecting: bool = False) -> None:
        super().__init__(" ".join(text.split()))
        self.code = code
        self.broken = broken
        self.connecting = connecting


def told(text: str, *, code: str, broken: bool) -> Exception:
    """What a server's complaint is: of a value, which is the caller's, or of anything else."""
    if code in _TEXTS:
        return UnicodeError(text)
    if code in _NUMBERS:
        return OverflowError(text)
    return ServerError(text, code=code, broken=broken)
