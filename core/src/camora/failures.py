"""Exceptions as text that is safe to store: whatever they hold, and however they are broken."""

from __future__ import annotations

import traceback
from collections.abc import Collection
from types import TracebackType

from camora.outcome import ErrorInfo
from camora.secrets import hide

__all__ = ["describe"]

TEXT_LIMIT = 4_000
TRACEBACK_LIMIT = 20_000


def describe(error: BaseException, *, timeout: bool = False, secrets: Collection[str] = ()) -> ErrorInfo:
    """Type, text and traceback of an exception, bounded, without ever raising; `secrets` are texts to be hidden."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return ErrorInfo(
        type=_remote(error, "remote_type") or name,
        text=_bounded(hide(_text(error), secrets), TEXT_LIMIT),
        traceback=_bounded(hide(_trace(error), secrets), TRACEBACK_LIMIT),
        timeout=timeout,
    )


def _remote(error: BaseException, name: str) -> str:
    """What a pool's process said of the exception there; empty for one of this process."""
    try:
        found = getattr(error, name, "")
    except BaseException:  # noqa: BLE001 -- a stranger's __getattr__ may do anything
        return ""
    return found if isinstance(found, str) else ""


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:  # noqa: BLE001 -- a stranger's __str__ may do anything
        return f"<its text cannot be made: {type(broken).__name__}>"


def _trace(error: BaseException) -> str:
    if remote := _remote(error, "remote_traceback"):
        return remote
    try:
        return "".join(traceback.format_exception(type(error), error, _users_part(error), limit=-50))
    except BaseException:  # noqa: BLE001 -- formatting calls __str__, too
        return "".join(traceback.format_tb(error.__traceback__, limit=-50))


def _users_part(error: BaseException) -> TracebackType | None:
    """The traceback from where the framework is left: its own frames tell a user nothing. All of it if none is left."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_globals.get("__name__", "")):
        trace = trace.tb_next
    return trace or error.__traceback__


def _is_ours(module: str) -> bool:
    """Plugins' own wrappers stand between a worker and the user's function, too."""
    package = module.partition(".")[0]
    return package == "camora" or package.startswith("camora_")


def _bounded(text: str, limit: int) -> str:
    """The head and tail of a long text; always valid Unicode."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - limit:,} characters left out …\n{text[-half:]}"
