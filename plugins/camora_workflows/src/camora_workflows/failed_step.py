"""What is told to a task that runs because another one has failed."""

from __future__ import annotations

from typing import Any

import attrs

from camora_workflows.plan import Outcome

__all__ = ["FailedStep", "failed_step"]


@attrs.frozen(kw_only=True)
class FailedStep:
    """The job that failed. A handler made by `s(…)` gets it first; one made by `si(…)` does not."""

    job_id: str
    task: str
    error_type: str = ""
    """The qualified name of the exception's class; empty for a job that expired."""
    error_text: str = ""
    status: str = "failed"
    """`failed` or `expired`."""


def failed_step(job_id: str, task: str, outcome: Outcome) -> dict[str, Any]:
    """A `FailedStep` as plain data: what travels, and what the handler's annotation makes one of."""
    error = outcome.error
    return {
        "job_id": job_id,
        "task": task,
        "error_type": error.type if error else "",
        "error_text": error.text if error else "",
        "status": outcome.told,
    }
