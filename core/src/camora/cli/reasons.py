"""Why a job is not running: judged from what is known, the most decisive reason first."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from camora.cli.belonging import told
from camora.cli.facts import JobFacts
from camora.cli.moments import exact, relative, span
from camora.interfaces.broker import JobState
from camora.interfaces.limits import Limit, LimitUse
from camora.interfaces.queues import QueuedJob
from camora.interfaces.workers import RunningJob, WorkerInfo
from camora.outcome import Status

__all__ = ["Reason", "reasons"]

_SILENT = 12_000
"""Milliseconds after which a worker that has not reported is called silent."""


@attrs.frozen
class Reason:
    """One reason: a stable `code`, a text for people, and what to do about it (empty: nothing)."""

    code: str
    text: str
    fix: str = ""


def reasons(facts: JobFacts) -> list[Reason]:
    """All that explains where the job is; never empty."""
    queued = facts.queued
    if facts.record is not None and facts.record.status.finished:
        return [_finished(facts)]
    if facts.letter is not None:
        return [_dead(facts)]
    if queued is None:
        return [_unknown(facts)]
    if queued.state == JobState.LEASED:
        return [*_leased(facts, queued), *_limits(facts)]
    found = [*_expired(facts), *_paused(facts, queued), *_waits(facts, queued)]
    found += [*_unserved(facts, queued), *_unknown_task(facts, queued), *_limits(facts)]
    if not found:
        found = [*_behind(facts, queued), *_busy(facts, queued)]
    return found or [_nothing(facts, queued)]


def _error(facts: JobFacts) -> str:
    """Type and first line of what went wrong last, where that is known."""
    known = [source.error for source in (facts.letter, facts.record) if source is not None and source.error is not None]
    if not known:
        return ""
    return f"{known[0].type}: {known[0].text.partition(chr(10))[0]}".removesuffix(": ")


def _finished(facts: JobFacts) -> Reason:
    assert facts.record is not None
    status, finished = facts.record.status, facts.record.finished
    when = f" {relative(finished, facts.now)} ({exact(finished)})" if finished else ""
    text = f"it has ended: {status}{when}"
    if status is not Status.FAILED:
        return Reason("finished", text)
    attempts = facts.record.attempts
    text += f", after {attempts} attempt{'' if attempts == 1 else 's'}: {_error(facts)}".rstrip(": ")
    fix = f"camora dead requeue {facts.id}" if facts.letter is not None else ""
    return Reason("finished", text, fix)


def _dead(facts: JobFacts) -> Reason:
    letter = facts.letter
    assert letter is not None
    text = f"it is a dead letter ({letter.reason}) since {exact(letter.died)}: {_error(facts)}".rstrip(": ")
    return Reason("dead", text, f"mend the cause, then: camora dead requeue {facts.id}")


def _unknown(facts: JobFacts) -> Reason:
    if facts.workflow:
        return Reason("workflow", told(facts.workflow, facts.id), f"camora workflow show {facts.workflow}")
    if facts.record is not None and facts.unseen:
        return Reason(
            "unseen",
            f"its last record says {facts.record.status}; this broker does not show where its message is",
            "camora queues says how many jobs wait; look at the workers' logs",
        )
    if facts.record is not None:
        return Reason(
            "vanished",
            f"its last record says {facts.record.status}, and the broker holds no such message: it was purged, or it "
            "is being settled at this moment",
            "ask again; if it stays so, dispatch it again",
        )
    rest = "" if facts.keeps_results else "; this app keeps no results, so jobs that have ended are not known"
    return Reason(
        "unknown",
        facts.unseen or f"nothing is known of it: it never was, or it ended longer ago than its result is kept{rest}",
        "check the id, and that --app, --config and --profile name the app that dispatched it",
    )


def _leased(facts: JobFacts, job: QueuedJob) -> Iterator[Reason]:
    holder = next((worker for worker in facts.workers or () if worker.name == job.worker), None)
    running = _running(holder, job.id)
    times = f" (taken {job.deliveries} times)" if job.deliveries > 1 else ""
    if facts.workers is not None and holder is None:
        yield Reason(
            "holder-silent",
            f"worker {job.worker or '?'} took it{times} and does not report any more",
            "wait: when its lease lapses, another worker gets the job",
        )
    elif running is not None:
        yield Reason("running", f"it is running in worker {job.worker} for {span((facts.now - running.since) / 1000)}")
    elif holder is not None and facts.now - holder.seen > _SILENT:
        yield Reason(
            "holder-silent",
            f"worker {job.worker} has it{times}, and last reported {relative(holder.seen, facts.now)}",
            "look at that worker; if it is gone, another one gets the job when the lease lapses",
        )
    else:
        yield Reason("leased", f"worker {job.worker or '?'} has it{times}: it runs, or waits for a slot there")


def _running(worker: WorkerInfo | None, job_id: str) -> RunningJob | None:
    return next((job for job in worker.running if job.id == job_id), None) if worker else None


def _expired(facts: JobFacts) -> Iterator[Reason]:
    expires = facts.message.expires if facts.message else None
    if expires is not None and expires <= facts.now:
        yield Reason(
            "expired",
            f"it expired {relative(expires, facts.now)} ({exact(expires)}): the worker that takes it drops it",
            "dispatch it again, with a later expires",
        )


def _paused(facts: JobFacts, job: QueuedJob) -> Iterator[Reason]:
    if facts.paused:
        yield Reason("paused", f"its queue {job.queue!r} is paused", f"camora queues resume {job.queue}")


def _waits(facts: JobFacts, job: QueuedJob) -> Iterator[Reason]:
    if job.due <= facts.now:
        return
    due = f"{relative(job.due, facts.now)} ({exact(job.due)})"
    message = facts.message
    if message is not None and message.misses:
        yield Reason(
            "given-back",
            f"workers gave it back {message.misses} times without running it (they did not know its task, or a guard "
            f"raised); it is due again {due}",
            "look at the workers' log for this id",
        )
    elif message is not None and message.attempt > 1:
        after = f" after {_error(facts)}" if _error(facts) else ""
        yield Reason("retry", f"it waits for attempt {message.attempt}{after}; due {due}")
    else:
        yield Reason("scheduled", f"it is due {due}")


def _unserved(facts: JobFacts, job: QueuedJob) -> Iterator[Reason]:
    if facts.workers is None:
        return
    serving = [worker for worker in facts.workers if worker.kind == "worker" and job.queue in worker.queues]
    if not serving:
        yield Reason("no-worker", f"no worker serves its queue {job.queue!r}", f"camora worker --queues {job.queue}")
    elif all(worker.state != "running" for worker in serving):
        states = ", ".join(f"{worker.name} ({worker.state})" for worker in serving)
        yield Reason(
            "no-worker",
            f"no worker takes jobs of its queue {job.queue!r}: {states}",
            "start another one, or camora workers resume",
        )


def _unknown_task(facts: JobFacts, job: QueuedJob) -> Iterator[Reason]:
    if not facts.task_known:
        yield Reason(
            "unknown-task",
            f"this app has no task {job.task!r}",
            "deploy workers whose app imports the module that registers it",
        )


def _limits(facts: JobFacts) -> Iterator[Reason]:
    for limit, use in facts.limits:
        if use.used >= limit.most and not any(facts.id in holder for holder in use.holders):
            yield Reason("limit", _limit_text(limit, use))


def _limit_text(limit: Limit, use: LimitUse) -> str:
    kind, _, name = limit.name.partition(":")
    if limit.per:
        return f"the rate of {'queue ' if kind == 'queue' else ''}{name} is used up: {use.used} in {span(limit.per)}"
    # As "job:worker"; which run of the job it is, is nobody's concern here.
    holders = f", by {', '.join(holder.rpartition(':')[0] for holder in use.holders[:5])}" if use.holders else ""
    more = " …" if len(use.holders) > 5 else ""
    slots = f"all {limit.most} slots of {name} are" if limit.most > 1 else f"the only slot of {name} is"
    return f"{slots} taken{holders}{more}"


def _behind(facts: JobFacts, job: QueuedJob) -> Iterator[Reason]:
    if facts.ahead:
        yield Reason("behind", f"it waits behind {facts.ahead} others of its queue {job.queue!r}", "start more workers")


def _busy(facts: JobFacts, job: QueuedJob) -> Iterator[Reason]:
    serving = [worker for worker in facts.workers or () if worker.kind == "worker" and job.queue in worker.queues]
    if serving and all(worker.concurrency and worker.busy >= worker.concurrency for worker in serving):
        yield Reason(
            "busy",
            f"all workers of its queue are busy: {', '.join(f'{w.name} {w.busy}/{w.concurrency}' for w in serving)}",
            "start more workers, or raise --concurrency",
        )


def _nothing(facts: JobFacts, job: QueuedJob) -> Reason:
    if facts.workers is None:
        return Reason(
            "ready",
            f"it is ready in queue {job.queue!r}; this store does not know its workers",
            f"see that one runs: camora worker --queues {job.queue}",
        )
    return Reason("ready", f"nothing keeps it: a worker of queue {job.queue!r} should take it any moment")
