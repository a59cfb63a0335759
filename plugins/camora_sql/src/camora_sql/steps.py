"""What links are asked to do, and doing it with a session: alone, or together with what waits beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from camora.errors import CamoraError

from camora_sql.dialects.base import Need
from camora_sql.session import Session

__all__ = ["Batch", "Step", "perform", "resolve"]

R = TypeVar("R")


class Step(Generic[R]):
    """Something to do with a session, and the future that waits for it."""

    __slots__ = ("answer", "error", "future", "need", "work")

    def __init__(self, work: Callable[[Session], R], future: asyncio.Future[R], need: Need | None) -> None:
        self.work = work
        self.future = future
        self.need = need
        """None: it makes its transactions itself."""
        self.answer: R | None = None
        self.error: BaseException | None = None

    def do(self, session: Session) -> R:
        """Do it, with nothing beside it."""
        return self.work(session)

    def resolve(self) -> None:
        """In the loop: tell who waits."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.answer)  # type: ignore[arg-type]


class Batch(Step[list[Any]]):
    """Items for a work that takes any number of them, and so those of others, too; one answer each, in order."""

    __slots__ = ("items", "of_many", "patience", "revocable", "single")

    def __init__(
        self,
        of_many: Callable[[Session, Sequence[Any]], Sequence[Any]],
        items: Sequence[Any],
        future: asyncio.Future[list[Any]],
        need: Need,
        *,
        single: bool,
        patience: float | None = None,
        revocable: bool = False,
    ) -> None:
        # No method of its own: a step in a circle keeps its items, which may be large, until garbage is collected.
        super().__init__(lambda session: list(of_many(session, items)), future, need)
        self.of_many = of_many
        self.items = items
        self.single = single
        """It is one statement, which needs no transaction around it, and which may be repeated."""
        self.revocable = revocable
        """It is left out if nobody waits for it any more when its turn comes."""
        self.patience = patience
        """Seconds to wait for other writers, if not as long as the session does; the same for all of one work."""


def perform(session: Session, steps: Sequence[Step[Any]]) -> None:
    """Do them, in as few transactions as can be; each has its answer or its error afterwards.

    Raises only what ends the loop's task that does it.
    """
    together: list[Step[Any]] = []
    singles: dict[Any, list[Batch]] = {}
    for step in steps:
        if step.need is None:
            _by_itself(session, step)
        elif isinstance(step, Batch) and step.revocable and step.future.cancelled():
            continue
        elif isinstance(step, Batch) and step.single:
            singles.setdefault(step.of_many, []).append(step)
        else:
            together.append(step)
    for batches in singles.values():
        _once(session, batches)
    if together:
        _transact(session, together)


def resolve(steps: Sequence[Step[Any]]) -> None:
    """In the loop: tell everybody who waits for these."""
    for step in steps:
        step.resolve()


def _by_itself(session: Session, step: Step[Any]) -> None:
    try:
        step.answer = step.do(session)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 -- it is the waiter's
        step.error = error


def _once(session: Session, batches: Sequence[Batch]) -> None:
    def all_of_them(session: Session) -> None:
        _merged(session, batches)

    need = max(batch.need or Need.NONE for batch in batches)
    patience = batches[0].patience
    _guarded(lambda: session.once(all_of_them, need, patience=patience), batches, lambda one: _once(session, one))


def _transact(session: Session, steps: Sequence[Step[Any]]) -> None:
    def all_of_them(session: Session) -> None:
        merged: dict[Any, list[Batch]] = {}
        for step in steps:
            if isinstance(step, Batch):
                merged.setdefault(step.of_many, []).append(step)
        for step in steps:
            if not isinstance(step, Batch):
                step.answer = step.do(session)
            elif step.of_many in merged:
                _merged(session, merged.pop(step.of_many))

    need = max(step.need or Need.NONE for step in steps)
    _guarded(lambda: session.write(all_of_them, need), steps, lambda one: _transact(session, one))


def _merged(session: Session, batches: Sequence[Batch]) -> None:
    if len(batches) == 1:
        batches[0].answer = batches[0].do(session)
        return
    answers = list(batches[0].of_many(session, [item for batch in batches for item in batch.items]))
    start = 0
    for batch in batches:
        batch.answer = answers[start : start + len(batch.items)]
        start += len(batch.items)


def _guarded(work: Callable[[], None], steps: Sequence[Any], alone: Callable[[Sequence[Any]], None]) -> None:
    try:
        work()
    except asyncio.CancelledError:
        raise
    except CamoraError as error:
        # The database refuses: it would refuse each of them.
        for step in steps:
            step.error = error
    except BaseException as error:  # noqa: BLE001 -- it is the waiter's
        if len(steps) == 1:
            steps[0].error = error
            return
        # One of them is at fault, and must not take the others along.
        for step in steps:
            alone([step])
