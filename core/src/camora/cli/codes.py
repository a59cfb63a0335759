"""How a command ends, as the shell sees it. The same for every command; `docs/cli.md` lists them."""

from __future__ import annotations

__all__ = ["DEFECT", "FAILED", "INTERRUPTED", "MEANINGS", "MISTAKE", "NOT_FOUND", "OK"]

OK = 0
FAILED = 1
"""It was tried and did not succeed: the broker is away, a job failed, a check did not pass."""
MISTAKE = 2
"""The set-up or the arguments are wrong; nothing was tried."""
NOT_FOUND = 3
"""What was asked about is not there: no such job, no such dead letter."""
DEFECT = 70
"""An error that nobody expected, with its traceback: a defect of camora, or of a plugin."""
INTERRUPTED = 130
"""Ctrl-C."""

MEANINGS = (
    (OK, "Done."),
    (FAILED, "It was tried and did not succeed: the broker is away, a job failed, a check did not pass."),
    (MISTAKE, "The set-up or the arguments are wrong; nothing was tried."),
    (NOT_FOUND, "What was asked about is not there: no such job, no such dead letter."),
    (DEFECT, "An error that nobody expected; its traceback says where."),
    (INTERRUPTED, "Interrupted by Ctrl-C."),
)
"""As `camora --help` lists them."""
