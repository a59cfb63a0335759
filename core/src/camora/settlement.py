"""The one place that turns outcomes into settlements, and settlements into broker calls."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from camora.clock import Clock
from camora.errors import BrokerUnavailable
from camora.executor import Run, growing
from camora.failures import describe
from camora.interfaces.broker import Consumer
from camora.interfaces.codec import Codec
from camora.interfaces.results import ResultBackend
from camora.message import Envelope
from camora.outcome import Action, DeadLetter, ErrorInfo, JobRecord, Outcome, OutcomeKind, Settlement, Status

__all__ = ["Settler", "Verdicts"]

_STATUS = {
    OutcomeKind.SUCCEEDED: Status.SUCCEEDED,
    OutcomeKind.FAILED: Status.FAILED,
    OutcomeKind.DISCARDED: Status.DISCARDED,
    OutcomeKind.EXPIRED: Status.EXPIRED,
    OutcomeKind.CANCELLED: Status.CANCELLED,
    OutcomeKind.RETRY: Status.RETRYING,
    OutcomeKind.SUSPENDED: Status.SCHEDULED,
}


# Looking a member up on its class costs as much as all the rest of a comparison.
_DONE = Status.SUCCEEDED
_ACK, _SUCCEEDED = Action.ACK, OutcomeKind.SUCCEEDED
_RETRY, _SUSPENDED = OutcomeKind.RETRY, OutcomeKind.SUSPENDED


_TRIES = 3
"""How often a single settlement that is refused with an unknown error is tried again."""


class Verdicts:
    """Turns an outcome into what is to be done: a pure function of its inputs and the clock."""

    def __init__(
        self,
        *,
        codec: Codec,
        clock: Clock,
        worker: str,
        keep_records: bool,
        ttl: float,
        longest: float | None = None,
    ) -> None:
        self._codec = codec
        self._clock = clock
        self._worker = worker
        self._keep_records = keep_records
        self._ttl = ttl
        self._longest = longest
        """The longest delay that the broker can do, in seconds."""

    def settlement(self, run: Run, outcome: Outcome) -> Settlement:
        """What settles this run."""
        if outcome.kind is _SUCCEEDED:
            return Settlement(delivery=run.delivery, action=_ACK, record=self._record(run, outcome))
        match outcome.kind:
            case _ if run.acknowledged:
                # The message is gone, only the record is left to be written: whatever comes, it is the end.
                record = self._record(run, outcome if outcome.kind in _ENDS else _interrupted(outcome))
                return Settlement(delivery=run.delivery, action=Action.ACK, record=record)
            case OutcomeKind.RETRY:
                return self._again(run, outcome, attempt=_attempt(run) + 1, misses=0)
            case OutcomeKind.SUSPENDED:
                return self._suspended(run, outcome)
            case OutcomeKind.RELEASED if outcome.charged:
                return self._again(run, outcome, attempt=_attempt(run), misses=_misses(run) + 1)
            case OutcomeKind.RELEASED:
                return Settlement(delivery=run.delivery, action=Action.RELEASE, delay=outcome.delay, charged=False)
            case OutcomeKind.CRASHED:
                return Settlement(delivery=run.delivery, action=Action.RELEASE, delay=outcome.delay, charged=True)
            case OutcomeKind.FAILED:
                return self._failure(run, outcome)
            case _:
                return Settlement(delivery=run.delivery, action=Action.ACK, record=self._record(run, outcome))

    def _failure(self, run: Run, outcome: Outcome) -> Settlement:
        config = run.context.task.config if run.context else None
        if config is not None and outcome.reason == "failed":
            if _dropped(run):
                return Settlement(delivery=run.delivery, action=Action.ACK, record=self._record(run, outcome))
            if config.on_failure == "requeue":
                # Never at once: a job that always fails must not spin.
                again = Outcome(kind=OutcomeKind.RETRY, delay=growing(_misses(run)), error=outcome.error)
                return self._again(run, again, attempt=1, misses=_misses(run) + 1, life=1)
        return self.buried(run, outcome)

    def buried(self, run: Run, outcome: Outcome) -> Settlement:
        """The message becomes a dead letter, as it is: the last resort for every failure."""
        message = run.message
        record = self._record(run, outcome)
        letter = DeadLetter(
            id=run.delivery.id,
            queue=run.delivery.queue,
            task=message.task if message else "",
            body=run.delivery.body,
            reason=outcome.reason,
            error=outcome.error,
            attempts=_attempt(run) if run.context and run.context.ran else 0,
            deliveries=run.delivery.deliveries,
            died=self._clock.now_ms(),
        )
        return Settlement(delivery=run.delivery, action=Action.REJECT, letter=letter, record=record)

    def ending(self, run: Run, outcome: Outcome, settlement: Settlement) -> JobRecord:
        """What this settlement is the end of, whole: the result is there even where it is not to be kept."""
        record = settlement.record
        if record is None:
            return self._made(run, outcome if outcome.kind in _ENDS else _interrupted(outcome), whole=True)
        if outcome.kind is not _SUCCEEDED or record.value is outcome.encoded:
            return record
        return msgspec.structs.replace(record, value=outcome.encoded)

    def instead(self, run: Run, record: JobRecord) -> tuple[Outcome, Settlement]:
        """The outcome and the settlement of a run in whose place an earlier one stands, which came to this record."""
        kind = next(kind for kind in _ENDS if _STATUS[kind] is record.status)
        outcome = Outcome(kind=kind, encoded=record.value, error=record.error)
        own = self._record(run, outcome)
        if own is not None:
            own = msgspec.structs.replace(record, id=run.delivery.id, value=record.value if own.kept else None)
        settlement = Settlement(delivery=run.delivery, action=_ACK)
        if kind is OutcomeKind.FAILED and not run.acknowledged and not _dropped(run):
            settlement = self.buried(run, outcome)
        return outcome, msgspec.structs.replace(settlement, record=own)

    def _suspended(self, run: Run, outcome: Outcome) -> Settlement:
        """The same attempt, of its next life. It has begun, so it does not expire any more."""
        if self._longest is not None and outcome.delay > self._longest:
            # It looks how late it is when it runs, and goes on waiting.
            outcome = msgspec.structs.replace(outcome, delay=self._longest)
        return self._again(run, outcome, attempt=_attempt(run), misses=_misses(run), life=1, expires=False)

    def _again(
        self, run: Run, outcome: Outcome, *, attempt: int, misses: int, life: int = 0, expires: bool = True
    ) -> Settlement:
        message, delivery = run.message, run.delivery
        assert message is not None
        due = self._clock.now_ms() + round(outcome.delay * 1000) if outcome.delay > 0 else 0
        changes: dict[str, Any] = {"attempt": attempt, "misses": misses, "due": due}
        if life:
            changes["life"] = message.life + life
        if not expires:
            changes["expires"] = None
        body = self._codec.evolve(delivery.body, changes)
        envelope = Envelope(
            id=delivery.id,
            task=message.task,
            queue=delivery.queue,
            body=body,
            due=due,
            expires=message.expires if expires else None,
            priority=message.priority,
            key=message.key,
            key_ttl=message.key_ttl,
            options=None if run.context is None else run.context.task.owned,
        )
        goes_on = outcome.kind in (_RETRY, _SUSPENDED)
        record = self._record(run, outcome) if goes_on else None
        return Settlement(delivery=delivery, action=Action.RETRY, envelope=envelope, record=record)

    def _record(self, run: Run, outcome: Outcome) -> JobRecord | None:
        return self._made(run, outcome) if self._keep_records else None

    def _made(self, run: Run, outcome: Outcome, *, whole: bool = False) -> JobRecord:
        """The record; `whole`, with the value even where that is not to be kept."""
        message, context, kind = run.message, run.context, outcome.kind
        over = kind is not _SUSPENDED and context is not None and context.ran
        keep = True
        if context is not None:
            keep = (
                context.task.config.keep_result if context.message.keep_result is None else context.message.keep_result
            )
        return JobRecord(
            id=run.delivery.id,
            status=_DONE if kind is _SUCCEEDED else _STATUS[kind],
            task=message.task if message else "",
            queue=run.delivery.queue,
            value=outcome.encoded if keep or whole else None,
            kept=keep,
            error=outcome.error,
            attempts=_attempt(run) - (0 if over else 1) if message else 0,
            created=message.created if message else 0,
            started=context.started if context else 0,
            finished=0 if kind is _RETRY or kind is _SUSPENDED else self._clock.now_ms(),
            worker=self._worker,
            ttl=self._ttl,
        )


_ENDS = frozenset(
    {OutcomeKind.SUCCEEDED, OutcomeKind.FAILED, OutcomeKind.DISCARDED, OutcomeKind.EXPIRED, OutcomeKind.CANCELLED}
)


def _dropped(run: Run) -> bool:
    """Whether a failure of this task leaves no dead letter."""
    config = run.context.task.config if run.context else None
    return config is not None and (config.ack != "after" or config.on_failure == "drop")


def _interrupted(outcome: Outcome) -> Outcome:
    """What is left of an attempt that was to go on later, though its message was acknowledged before."""
    text = "interrupted after its message was acknowledged; it does not run again"
    return Outcome(kind=OutcomeKind.FAILED, error=outcome.error or ErrorInfo(type="camora.Interrupted", text=text))


def _attempt(run: Run) -> int:
    return run.message.attempt if run.message else 0


def _misses(run: Run) -> int:
    return run.message.misses if run.message else 0


Batch = list[tuple[Run, Settlement]]
"""Runs that have ended, and what settles each of them."""


class Settler:
    """Gathers the settlements of the same moment, and has the broker apply them together.

    One flush is under way at a time; what ends meanwhile makes up the next one. While the broker is away it goes on
    trying: the runs stay in the worker's hands, and their leases are kept.
    """

    def __init__(
        self,
        consumer: Consumer,
        results: ResultBackend | None,
        *,
        atomic: bool,
        settled: Callable[[Batch, Sequence[bool]], None],
        put_off: Callable[[Batch], None],
        logger: logging.Logger,
    ) -> None:
        self._consumer = consumer
        self._results = results
        self._atomic = atomic
        self._settled = settled
        self._tell_put_off = put_off
        self._logger = logger
        self._waiting: Batch = []
        self._flusher: asyncio.Task[None] | None = None
        self._put_off: set[asyncio.Task[None]] = set()
        self._abandoned = False

    def submit(self, run: Run, settlement: Settlement) -> None:
        """Settle this run with the next batch; `settled(batch, applied)` is called when that is done.

        `put_off(batch)` is called each time the broker takes some of a batch not yet.
        """
        self._waiting.append((run, settlement))
        self._start()

    def _start(self) -> None:
        if self._flusher is None and self._waiting and not self._abandoned:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
            self._flusher.add_done_callback(self._ended)

    def _ended(self, flusher: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step never reaches its own end."""
        if self._flusher is flusher:
            self._flusher = None
            self._start()

    async def drain(self) -> None:
        """Wait until nothing is left to settle."""
        while tasks := [*self._put_off, *([self._flusher] if self._flusher is not None else ())]:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    def abandon(self) -> None:
        """Stop trying; what is unsettled comes back to other workers when its lease lapses."""
        self._abandoned = True
        for task in [*self._put_off, *([self._flusher] if self._flusher is not None else ())]:
            task.cancel()

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    answers = await self._apply(batch)
                except asyncio.CancelledError:
                    self._waiting[:0] = batch
                    raise
                if None in answers:
                    batch, answers = self._put_off_rest(batch, answers)
                self._settled(batch, cast("Sequence[bool]", answers))
        finally:
            self._flusher = None
            if self._waiting and not self._abandoned:
                # A job that cancels every task it can find must not take settlements along. A new task, not a refusal
                # to end: a program that is ending for good cancels once, and waits.
                asyncio.get_running_loop().call_soon(self._start)

    def _put_off_rest(self, batch: Batch, answers: Sequence[bool | None]) -> tuple[Batch, list[bool | None]]:
        """What is settled. The rest is tried again later: it must not hold up what belongs to other servers."""
        pairs = list(zip(batch, answers, strict=True))
        later = [one for one, answer in pairs if answer is None]
        self._tell_put_off(later)
        task = asyncio.get_running_loop().create_task(self._after_a_while(later))
        self._put_off.add(task)
        task.add_done_callback(self._put_off.discard)
        done = [pair for pair in pairs if pair[1] is not None]
        return [one for one, _ in done], [answer for _, answer in done]

    async def _after_a_while(self, batch: Batch) -> None:
        try:
            await asyncio.sleep(random.uniform(0.25, 1.0))  # noqa: S311 -- jitter
        finally:
            self._waiting += batch
            self._start()

    async def _apply(self, batch: Batch, *, alone: bool = False) -> Sequence[bool | None]:
        """Settle a batch, which grows by what has ended meanwhile with each try, unless it is to stay `alone`."""
        tries = 0
        while True:
            try:
                return await self._once([settlement for _, settlement in batch])
            except (BrokerUnavailable, OSError) as error:
                if tries == 0:
                    self._logger.warning("cannot settle %d jobs, trying again: %s", len(batch), error)
                tries += 1
                await asyncio.sleep(random.uniform(0.05, 1.0) * growing(min(tries, 4)) / 2)  # noqa: S311 -- jitter
                if not alone:
                    # Of a broker of many servers, theirs may be there.
                    batch += self._waiting
                    self._waiting = []
            except Exception as error:
                if len(batch) == 1:
                    tries += 1
                    if tries <= _TRIES:  # a foreign store's errors are not all ours: it may pass
                        await asyncio.sleep(0.05 * 2**tries)
                        continue
                    self._logger.exception("%s cannot be settled; it becomes a dead letter", batch[0][0].label)
                    return [await self._reject_unsettled(*batch[0], error)]
                # One settlement that cannot be applied must not take the others along.
                return [(await self._apply([one], alone=True))[0] for one in batch]

    async def _reject_unsettled(self, run: Run, settlement: Settlement, error: Exception) -> bool | None:
        """Try at least to keep the message, with the reason."""
        letter = DeadLetter(
            id=run.delivery.id,
            queue=run.delivery.queue,
            task=run.message.task if run.message else "",
            body=run.delivery.body,
            reason="failed",
            error=describe(error),
            deliveries=run.delivery.deliveries,
        )
        record = settlement.record
        if record is not None:
            record = msgspec.structs.replace(record, status=Status.FAILED, value=None, error=letter.error)
        rejection = Settlement(
            delivery=run.delivery, action=Action.REJECT, letter=letter, record=record, successors=settlement.successors
        )
        while True:
            try:
                return (await self._once([rejection]))[0]
            except Exception as raised:
                if not rejection.successors or isinstance(raised, (BrokerUnavailable, OSError)):
                    # It comes back when its lease lapses.
                    self._logger.exception("%s cannot be dead-lettered either", run.label)
                    return False
                # What follows the job may be what is wrong; but it must not be lost because the broker is away.
                rejection = msgspec.structs.replace(rejection, successors=())

    async def _once(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        if self._results is not None and not self._atomic:
            # Two systems: the result first, the acknowledgement last, so that no job is gone without its result.
            records = [settlement.record for settlement in settlements if settlement.record is not None]
            if records:
                await self._results.store(records)
            settlements = [msgspec.structs.replace(settlement, record=None) for settlement in settlements]
        return await self._consumer.settle(settlements)
