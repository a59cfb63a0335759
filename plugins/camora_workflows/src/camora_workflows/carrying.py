"""Workflows that are recorded nowhere: what may follow a job travels in its message's header.

Each node has one source, so all is decided where that ends, from the header alone. The value is put into the message of
who gets it.
"""

from __future__ import annotations

from typing import Any

from camora.errors import DecodeError, EncodeError, MessageTooLarge
from camora.failures import describe
from camora.interfaces import Ending, FollowUp, Host
from camora.message import Envelope
from camora.outcome import ErrorInfo, JobRecord

from camora_workflows.beginning import enveloped
from camora_workflows.consequences import SUCCEEDED, verdict
from camora_workflows.failed_step import failed_step
from camora_workflows.plan import HEADER, Carried, CarriedNode, Input, Outcome, Spec, header_of, job_id
from camora_workflows.summing_up import status_of

__all__ = ["carried_on"]

_MISSING = "camora.errors.PayloadError"


def carried_on(host: Host, place: Carried, ending: Ending) -> FollowUp:
    """What follows a job that ends, and travels with it. Repeated, it has the same ids."""
    return _Journey(host, place, ending).follow_up()


class _Journey:
    """What comes of one end."""

    def __init__(self, host: Host, place: Carried, ending: Ending) -> None:
        self._host = host
        self._place = place
        self._ending = ending
        self._nodes = {node.index: node for node in place.nodes}
        self._successors: list[Envelope] = []
        self._records: list[JobRecord] = []
        record = ending.record
        self._root = Outcome(
            status=record.status.value,
            value=record.value,
            error=record.error,
            attempts=record.attempts,
            started=record.started,
            finished=record.finished,
            worker=record.worker,
        )
        self._failed = (record.id, ending.message.task, self._root)
        """The job that is the reason of what is skipped, and what handlers are told of."""

    def follow_up(self) -> FollowUp:
        """Follow it to where jobs begin, or nothing is left."""
        self._end(self._place.index, self._place.feeds, self._root)
        return FollowUp(successors=tuple(self._successors), records=tuple(self._records))

    def _end(self, index: int, feeds: tuple[int, ...], outcome: Outcome) -> None:
        # Not by recursion: a chain may be longer than the stack is deep.
        open_ends = [(index, feeds, outcome)]
        while open_ends:
            index, feeds, outcome = open_ends.pop(0)
            if index == self._place.result:
                self._records.append(self._record(outcome))
            for target in feeds:
                node = self._nodes.get(target)
                if node is None:
                    continue
                ends = verdict(node.spec, index, outcome) or self._begin(node, outcome)
                if ends is not None:
                    open_ends.append((target, node.feeds, ends))

    def _begin(self, node: CarriedNode, outcome: Outcome) -> Outcome | None:
        """Let a job begin; or how it ends, for one that cannot be sent."""
        spec, place = node.spec, self._place
        its_id = job_id(place.workflow, node.index)
        try:
            first = self._first(spec, outcome)
            header = header_of(
                Carried(
                    workflow=place.workflow,
                    index=node.index,
                    feeds=node.feeds,
                    result=place.result,
                    nodes=self._behind(node),
                )
            )
            self._successors.append(enveloped(self._host, spec, its_id, {HEADER: header}, first))
        except _NothingToGiveError as error:
            return self._undone(its_id, spec, ErrorInfo(type=_MISSING, text=str(error)))
        except MessageTooLarge as error:
            text = f'{error}; or give the app a store of workflows, such as results="redis://…": it hands results over'
            return self._undone(its_id, spec, ErrorInfo(type=describe(error).type, text=text))
        except (DecodeError, EncodeError) as error:
            return self._undone(its_id, spec, describe(error))
        return None

    def _undone(self, its_id: str, spec: Spec, error: ErrorInfo) -> Outcome:
        outcome = Outcome(status="failed", error=error, finished=self._host.clock.now_ms())
        self._failed = (its_id, spec.task, outcome)
        return outcome

    def _first(self, spec: Spec, outcome: Outcome) -> tuple[Any, ...]:
        if spec.input is Input.NOTHING:
            return ()
        if spec.input is Input.FAILURE:
            return (failed_step(*self._failed),)
        if outcome.value is None:  # of a version to come, or of a store that keeps statuses only
            raise _NothingToGiveError(f"{self._ending.message.task} keeps no result, so {spec.task} can get none")
        value = self._host.result_codec.decode_value(outcome.value)
        return (value,)

    def _behind(self, node: CarriedNode) -> tuple[CarriedNode, ...]:
        """All that may follow a node, which goes with it."""
        found: list[CarriedNode] = []
        waiting = list(node.feeds)
        while waiting:
            further = self._nodes.get(waiting.pop(0))
            if further is not None:
                found.append(further)
                waiting += further.feeds
        return tuple(found)

    def _record(self, outcome: Outcome) -> JobRecord:
        """That of the workflow, which has come to this."""
        ending, (_, task, told) = self._ending.record, self._failed
        succeeded = outcome.told == SUCCEEDED
        return JobRecord(
            id=self._place.workflow,
            status=status_of(outcome),
            task=ending.task if succeeded else task,
            queue=ending.queue,
            value=outcome.value if succeeded else None,
            kept=outcome.value is not None,
            error=None if succeeded else told.error,
            attempts=told.attempts,
            created=ending.created,
            started=told.started,
            finished=self._host.clock.now_ms(),
            worker=told.worker,
            ttl=ending.ttl,
        )


class _NothingToGiveError(Exception):
    """A job that others wait for keeps no result."""
