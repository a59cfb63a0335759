"""What went wrong, as one short text and an exit code."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

from camora.cli.codes import DEFECT, FAILED, MISTAKE
from camora.errors import CamoraError, ConfigurationError, EncodeError, MessageTooLarge, PayloadError
from camora.masking import masked, masked_error

__all__ = ["explained"]


def explained(error: Exception) -> tuple[str, int]:
    """The text and the exit code: short for somebody's mistake or misfortune, a traceback for a defect."""
    if isinstance(error, (ConfigurationError, EncodeError, MessageTooLarge, PayloadError)):
        return masked_error(f"camora: {error}"), MISTAKE
    if isinstance(error, CamoraError):
        return masked_error(f"camora: {error}"), FAILED
    if type(error).__module__.partition(".")[0] == "cyclopts":
        return masked_error(_of_arguments(error)), MISTAKE
    trace = "".join(traceback.format_exception(error)).rstrip()
    return masked(
        f"{trace}\ncamora: this is a defect, of camora or of a plugin; please report it with the above"
    ), DEFECT


def _of_arguments(error: Exception) -> str:
    chain = " ".join(getattr(error, "command_chain", None) or ())
    command = f"camora {chain}".rstrip()
    return f"{command}: {_mistyped(error) or error} More: {command} --help"


def _mistyped(error: Exception) -> str | None:
    """The word that is wrong, and the one that is nearest; None where the error says it better itself."""
    kind = type(error).__name__
    if kind not in ("UnknownOptionError", "UnusedCliTokensError"):
        return None
    app: Any = getattr(error, "app", None)
    chain, given = getattr(error, "command_chain", None) or (), getattr(error, "root_input_tokens", None) or ()
    words = [name for name in app if not name.startswith("-")]
    first = next(iter(given[len(chain) :]), "")
    # A group that does not know a command's name reads the options behind it as its own.
    if words and not first.startswith("-") and (text := _nearest(f"there is no {first!r}", first, words)):
        return text
    if kind == "UnknownOptionError":
        token: Any = getattr(error, "token", None)
        option = (token.keyword or token.value).partition("=")[0]
        known = [name for argument in app.assemble_argument_collection() for name in argument.names]
        return _nearest(f"no option {option!r}", option, [*known, "--help"]) or f"there is no option {option!r}."
    if words:
        return f"there is no {first!r}; there are {', '.join(words)}."
    [unused, *_] = getattr(error, "unused_tokens", None) or [first]
    return f"{unused!r} is not expected here."


def _nearest(text: str, given: str, known: Sequence[str]) -> str | None:
    import difflib

    near = difflib.get_close_matches(given, known, n=1)
    return f"{text}: did you mean {near[0]!r}?" if near else None
