"""Ending: from an outcome to a settled delivery, and what is told of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence

from camora.clock import Clock
from camora.events import EventBus
from camora.executor import Run, StopReason
from camora.extensions import Extensions
from camora.failures import describe
from camora.interfaces.broker import Consumer
from camora.interfaces.results import ResultBackend
from camora.lease import LeaseKeeper
from camora.message import Envelope
from camora.outcome import Action, Outcome, OutcomeKind, Settlement
from camora.settlement import Batch, Settler, Verdicts
from camora.worker.following import Following
from camora.worker.hands import Hands
from camora.worker.reports import Reports

__all__ = ["Ender"]

_FOR_EVER = 100 * 366 * 86400.0
"""Seconds: what is due so much later waits for somebody, and not for its time."""
_PAUSES = (0.1, 0.5, 2.0)
"""Seconds between two tries to store the end of a job whose message is gone."""


class Ender:
    """Settles runs, and lets them go. `gone()` is called when some have left the lane's hands."""

    def __init__(
        self,
        hands: Hands,
        consumer: Consumer,
        *,
        results: ResultBackend | None,
        atomic: bool,
        verdicts: Verdicts,
        keeper: LeaseKeeper,
        events: EventBus,
        clock: Clock,
        worker: str,
        extensions: Extensions,
        publish: Callable[[Sequence[Envelope]], Awaitable[object]],
        gone: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._hands = hands
        self._results = results
        self._verdicts = verdicts
        self._keeper = keeper
        self._gone = gone
        self._logger = logger
        self._reports = Reports(events, clock, worker)
        self._settler = Settler(
            consumer, results, atomic=atomic, settled=self._on_settled, put_off=self._on_put_off, logger=logger
        )
        self._publish = publish
        self._following = Following(
            extensions,
            results,
            verdicts=verdicts,
            followed=self._settle,
            dropped=self._drop,
            put_off=self._on_put_off,
            logger=logger,
        )
        self._storing: set[asyncio.Task[None]] = set()
        self.settled = 0
        """Jobs ended by this lane so far; what was given back or is tried again is not counted."""
        self.handled = 0
        """Deliveries settled by this lane so far, whichever way."""
        self.refused = 0
        """Settlements refused because another worker had the delivery."""

    def finish(self, run: Run, outcome: Outcome) -> None:
        """Settle a run that has ended, one way or another. Called once for each."""
        if run.reason is StopReason.LEASE_LOST:
            run.outcome = outcome
            self._drop(run)
            return
        if outcome.error is not None:
            self._tell(run, outcome)
        try:
            settlement = self._verdicts.settlement(run, outcome)
        except Exception as error:
            self._logger.exception("%s: its outcome cannot be settled; it becomes a dead letter", run.label)
            outcome = Outcome(kind=OutcomeKind.FAILED, error=describe(error))
            settlement = self._verdicts.buried(run, outcome)
        run.settling = True
        run.outcome = outcome
        if run.message is not None and run.message.headers and self._following.concerns(run, settlement):
            self._following.submit(run, settlement)
        else:
            self._settle(run, settlement)

    def _settle(self, run: Run, settlement: Settlement) -> None:
        if run.acknowledged:
            self._record_only(run, settlement)
        else:
            self._settler.submit(run, settlement)

    def _drop(self, run: Run) -> None:
        """Another worker has it, and what came of it here counts for nothing."""
        assert run.outcome is not None
        self.refused += 1
        self._logger.warning("%s: lost its lease; its outcome (%s) is dropped", run.label, run.outcome.kind.value)
        self._forget(run)
        self._gone()

    def _tell(self, run: Run, outcome: Outcome) -> None:
        """Say in the log what went wrong; the traceback is with the job's record and its dead letter."""
        error = outcome.error
        assert error is not None
        match outcome.kind:
            case OutcomeKind.RETRY if outcome.delay > _FOR_EVER:
                self._logger.info("%s: set aside: %s", run.label, error.text)
            case OutcomeKind.RETRY:
                self._logger.info("%s: attempt failed, again in %.1f s: %s", run.label, outcome.delay, error.line)
            case OutcomeKind.FAILED:
                self._logger.warning("%s: failed for good: %s", run.label, error.line)
            case OutcomeKind.RELEASED | OutcomeKind.CRASHED:
                self._logger.warning("%s: given back, for %.1f s: %s", run.label, outcome.delay, error.line)

    def _record_only(self, run: Run, settlement: Settlement) -> None:
        record = settlement.record
        # Nobody runs this job again, so nobody else publishes what follows it: that is tried for as long as it takes.
        pauses = itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]) if settlement.successors else (0.0,))

        async def store() -> None:
            try:
                for pause in pauses:
                    try:
                        if settlement.successors:
                            await self._publish(settlement.successors)
                        if self._results is not None and record is not None:
                            await self._results.store([record])
                    except Exception as error:  # noqa: BLE001 -- whatever the store raises
                        self._logger.warning("%s: its end cannot be stored: %r", run.label, error)
                        await asyncio.sleep(pause)
                    else:
                        break
            finally:
                self._on_settled([(run, settlement)], [True])

        # Not the run's own task: an interruption of the attempt must not reach its record.
        self._storing.add(task := asyncio.get_running_loop().create_task(store()))
        task.add_done_callback(self._storing.discard)

    def _on_put_off(self, batch: Batch) -> None:
        self._hands.put_off.update(run for run, _ in batch)
        self._gone()

    def _on_settled(self, batch: Batch, answers: Sequence[bool]) -> None:
        for (run, settlement), applied in zip(batch, answers, strict=True):
            if applied:
                self.handled += 1
                if settlement.action is Action.ACK or settlement.action is Action.REJECT:
                    self.settled += 1
                if self._reports.wanted:
                    assert run.outcome is not None
                    self._reports.settled(run, run.outcome, settlement)
                    self._reports.dispatched(settlement.successors)
            elif run.reason is None:
                self.refused += 1
                self._logger.warning(
                    "%s: it is not ours any more, another worker has it or it is settled; nothing was settled here",
                    run.label,
                )
                if self._reports.wanted:
                    self._reports.lease_lost(run)
            self._forget(run)
        self._gone()

    def _forget(self, run: Run) -> None:
        self._keeper.let_go(run.delivery)
        self._hands.drop(run)

    async def close(self) -> None:
        """Settle what is left, for 5 seconds at most; the rest comes back to others when its lease lapses."""
        try:
            async with asyncio.timeout(5.0):
                await self._following.drain()
                await self._settler.drain()
                if self._storing:
                    await asyncio.wait(self._storing)
        except TimeoutError:
            self._logger.warning("the last settlements did not get through; their jobs come back")
        for task in self._storing:
            task.cancel()
        self._following.abandon()
        self._settler.abandon()
