"""What the end of a node means for those that wait for it: pure decisions."""

from __future__ import annotations

from camora.outcome import Status

from camora_workflows.plan import FAILURES, SKIPPED, Kind, Outcome, Spec

__all__ = ["SUCCEEDED", "several", "verdict"]

SUCCEEDED = Status.SUCCEEDED.value


def verdict(spec: Spec, source: int, outcome: Outcome) -> Outcome | None:
    """How a node ends because this source of it came to this; None when, as far as this source goes, it may begin."""
    told = outcome.told
    if spec.handler:
        return None if told in FAILURES else Outcome(status=SKIPPED)
    if told == SUCCEEDED:
        return None
    origin = (outcome.origin if outcome.origin >= 0 else source) if told else -1
    status = (told or SKIPPED) if spec.kind is Kind.JOIN else SKIPPED
    return Outcome(status=status, cause=told, origin=origin)


def several(spec: Spec) -> bool:
    """Whether more than one node may feed it, so that the end of one does not tell how the others ended."""
    return spec.kind is Kind.JOIN or len(spec.sources) > 1
