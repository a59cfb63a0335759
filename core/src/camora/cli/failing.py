"""What went wrong, as one short text and an exit code."""

from __future__ import annotations

import traceback

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
    import difflib

    chain = " ".join(getattr(error, "command_chain", None) or ())
    command = f"camora {chain}".rstrip()
    text = str(error)
    unused = getattr(error, "unused_tokens", None)
    if unused:
        text = f"{unused[0]!r} is not expected here."
        app = getattr(error, "app", None)
        known = [name for name in app or () if not name.startswith("-")]
        near = difflib.get_close_matches(unused[0], known, n=1)
        if near:
            text = f"there is no {unused[0]!r}. Did you mean {near[0]!r}?"
        elif known:
            text = f"there is no {unused[0]!r}; there are {', '.join(known)}."
    return f"{command}: {text} More: {command} --help"
