"""What follows the end of jobs: found out before they are settled, so that nobody is told of an end without it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

import msgspec

from camora.errors import BrokerUnavailable
from camora.executor import Run, growing
from camora.extensions import Extensions
from camora.interfaces.extension import Ending, FollowUp
from camora.interfaces.results import ResultBackend
from camora.outcome import Action, Settlement
from camora.settlement import Batch, Verdicts

__all__ = ["Following"]


class Following:
    """Asks the extensions, again and again where that fails, and hands on what is to be settled.

    `followed(run, settlement)` is called once for each run, with what is to be settled now; `dropped(run)` instead of
    it where another worker has got the delivery meanwhile; `put_off(batch)` when some have to wait.
    """

    def __init__(
        self,
        extensions: Extensions,
        results: ResultBackend | None,
        *,
        verdicts: Verdicts,
        followed: Callable[[Run, Settlement], None],
        dropped: Callable[[Run], None],
        put_off: Callable[[Batch], None],
        logger: logging.Logger,
    ) -> None:
        self._extensions = extensions
        self._results = results
        self._verdicts = verdicts
        self._followed = followed
        self._dropped = dropped
        self._put_off = put_off
        self._logger = logger
        self._waiting: Batch = []
        self._asking: asyncio.Task[None] | None = None
        self._asking_again: set[asyncio.Task[None]] = set()
        self._troubled = False
        self._abandoned = False

    def concerns(self, run: Run, settlement: Settlement) -> bool:
        """Whether this settles the end of a job that some extension wants to know of."""
        message, outcome = run.message, run.outcome
        if message is None or outcome is None or not self._extensions.concern(message):
            return False
        # A copy that somebody has put where it was not sent says nothing about the job itself.
        return settlement.action in (Action.ACK, Action.REJECT) and outcome.reason != "mismatch"

    def submit(self, run: Run, settlement: Settlement) -> None:
        """Find out what follows, with the others that end in this moment."""
        self._waiting.append((run, settlement))
        self._start()

    def _start(self) -> None:
        if self._asking is None and self._waiting and not self._abandoned:
            self._asking = asyncio.get_running_loop().create_task(self._ask_all())
            self._asking.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A job that cancels every task it can find must not take ends along: what is left is asked for anew."""
        if self._asking is task:
            self._asking = None
        self._asking_again.discard(task)
        self._start()

    async def _ask_all(self) -> None:
        while batch := self._waiting:
            self._waiting = []
            try:
                self._hand_on(batch, await self._ask(batch))
            except asyncio.CancelledError:
                self._waiting[:0] = batch
                raise
            except Exception as error:  # noqa: BLE001 -- an extension may raise anything
                self._tell(batch, error)
                self._put_off(batch)
                again = asyncio.get_running_loop().create_task(self._ask_again(batch, error))
                self._asking_again.add(again)
                again.add_done_callback(self._ended)

    async def _ask_again(self, batch: Batch, error: Exception) -> None:
        """Until there is an answer: for all of them at once where a store is away, else for each by itself."""
        tries = 0
        try:
            while batch := self._still_ours(batch):
                tries += 1
                await asyncio.sleep(random.uniform(0.05, 1.0) * growing(min(tries, 4)) / 4)  # noqa: S311 -- jitter
                together = isinstance(error, (BrokerUnavailable, OSError))
                for part in [list(batch)] if together else [[one] for one in batch]:
                    try:
                        self._hand_on(part, await self._ask(part))
                    except Exception as raised:  # noqa: BLE001 -- as above
                        error = raised
                        self._tell(part, error)
                    else:
                        batch = [one for one in batch if one not in part]
        except asyncio.CancelledError:
            self._waiting += batch
            raise

    def _still_ours(self, batch: Batch) -> Batch:
        """Without those whose lease has lapsed: whoever has them now asks for himself."""
        for run, _ in batch:
            if run.overtaken:
                self._dropped(run)
        return [one for one in batch if not one[0].overtaken]

    async def _ask(self, batch: Batch) -> Sequence[FollowUp]:
        answers = await self._extensions.ended([self._ending(run, settlement) for run, settlement in batch])
        records = [record for answer in answers for record in answer.records]
        if records and self._results is not None and not self._results.private:
            await self._results.store(records)
        return answers

    def _ending(self, run: Run, settlement: Settlement) -> Ending:
        assert run.message is not None
        assert run.outcome is not None
        return Ending(message=run.message, record=self._verdicts.ending(run, run.outcome, settlement))

    def _hand_on(self, batch: Batch, answers: Sequence[FollowUp]) -> None:
        self._troubled = False
        for (run, own), answer in zip(batch, answers, strict=True):
            settlement = own
            if answer.instead is not None:
                run.outcome, settlement = self._verdicts.instead(run, answer.instead)
            if answer.successors:
                settlement = msgspec.structs.replace(settlement, successors=answer.successors)
            if answer.records and self._results is not None and self._results.private:
                settlement = msgspec.structs.replace(settlement, others=answer.records)
            self._followed(run, settlement)

    def _tell(self, batch: Batch, error: Exception) -> None:
        if self._troubled:
            return
        self._troubled = True
        more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
        unknown = not isinstance(error, (BrokerUnavailable, OSError))
        self._logger.warning(
            "%s%s: what follows their end cannot be found out, trying again: %s",
            batch[0][0].label,
            more,
            error,
            exc_info=error if unknown else None,
        )

    async def drain(self) -> None:
        """Wait until nothing is left to be found out."""
        while tasks := [*self._asking_again, *([self._asking] if self._asking is not None else ())]:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    def abandon(self) -> None:
        """Stop trying; what is left comes back to other workers when its lease lapses."""
        self._abandoned = True
        for task in [*self._asking_again, *([self._asking] if self._asking is not None else ())]:
            task.cancel()
