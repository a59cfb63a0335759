"""`camora why`."""

from __future__ import annotations

from typing import Annotated

import attrs
from cyclopts import Parameter

from camora.cli.codes import NOT_FOUND, OK
from camora.cli.common import JsonOption, Where, item, print_json, run, say
from camora.cli.facts import gather
from camora.cli.reasons import reasons

__all__ = ["why"]


def why(
    job_id: Annotated[str, Parameter(help="The job's id.")],
    /,
    *,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> int:
    """Say why a job is not running, and what to do about it; exits with 3 when nothing is known of the job."""
    facts = run(lambda app: gather(app, job_id), where.find())
    found = reasons(facts)
    task = facts.queued.task if facts.queued else facts.record.task if facts.record else ""
    if as_json:
        print_json({"id": job_id, "task": task, "reasons": [attrs.asdict(reason) for reason in found]})
    else:
        say(f"{task or 'job'} {job_id}", style="bold")
        for reason in found:
            item("•", reason.text, indent=2)
            if reason.fix:
                item("→", reason.fix, style="green", indent=4)
    return NOT_FOUND if found[0].code == "unknown" else OK
