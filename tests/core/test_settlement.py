"""Turning outcomes into settlements, and settlements into calls: batched, and one bad one harms no other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from camora.builtin.json_codec import JsonCodec
from camora.clock import SYSTEM_CLOCK
from camora.errors import BrokerUnavailable
from camora.executor import Run
from camora.interfaces import Consumer
from camora.message import Delivery, Envelope, Message
from camora.outcome import Action, ErrorInfo, Outcome, OutcomeKind, Settlement, Status
from camora.settlement import Settler, Verdicts


def run(job_id: str = "a", **fields: Any) -> Run:
    message = Message(id=job_id, task="work", **fields)
    made = Run(Delivery(id=job_id, queue="default", body=JsonCodec().encode(message), receipt=1))
    made.message = message
    return made


VERDICTS = Verdicts(codec=JsonCodec(), clock=SYSTEM_CLOCK, worker="w", keep_records=True, ttl=60)


@pytest.mark.parametrize(
    ("outcome", "action", "status"),
    [
        (Outcome(kind=OutcomeKind.SUCCEEDED, encoded=b"1"), Action.ACK, Status.SUCCEEDED),
        (Outcome(kind=OutcomeKind.DISCARDED), Action.ACK, Status.DISCARDED),
        (Outcome(kind=OutcomeKind.EXPIRED), Action.ACK, Status.EXPIRED),
        (Outcome(kind=OutcomeKind.CANCELLED), Action.ACK, Status.CANCELLED),
        (Outcome(kind=OutcomeKind.FAILED, error=ErrorInfo(type="E")), Action.REJECT, Status.FAILED),
        (Outcome(kind=OutcomeKind.RETRY, delay=5), Action.RETRY, Status.RETRYING),
        (Outcome(kind=OutcomeKind.RELEASED), Action.RELEASE, None),
        (Outcome(kind=OutcomeKind.RELEASED, charged=True), Action.RETRY, None),
        (Outcome(kind=OutcomeKind.CRASHED), Action.RELEASE, None),
    ],
)
def test_every_outcome_has_its_settlement(outcome: Outcome, action: Action, status: Status | None) -> None:
    settlement = VERDICTS.settlement(run(), outcome)
    assert settlement.action is action
    assert (settlement.record.status if settlement.record else None) is status
    assert settlement.charged is (outcome.kind is not OutcomeKind.RELEASED or outcome.charged)


def test_a_retry_keeps_the_id_and_every_field_it_does_not_know() -> None:
    made = run()
    body = made.delivery.body[:-1] + b',"from_the_future":[1,2]}'
    made.delivery = Delivery(id="a", queue="default", body=body, receipt=1)
    envelope = VERDICTS.settlement(made, Outcome(kind=OutcomeKind.RETRY, delay=5)).envelope
    assert envelope is not None
    assert envelope.id == "a"
    assert b'"from_the_future":[1,2]' in envelope.body
    assert JsonCodec().decode(envelope.body).attempt == 2
    assert envelope.due > SYSTEM_CLOCK.now_ms()


class Scripted(Consumer):
    """Answers as told; keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[list[str]] = []

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        self.calls.append([settlement.delivery.id for settlement in settlements])
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return answer(settlements)  # type: ignore[no-any-return]
        return [answer] * len(settlements)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        raise NotImplementedError

    def leases(self) -> Any:
        raise NotImplementedError

    async def stop(self) -> None: ...

    async def close(self) -> None: ...


def settler(consumer: Consumer) -> tuple[Settler, dict[str, bool], list[list[str]]]:
    ended: dict[str, bool] = {}
    put_off: list[list[str]] = []
    made = Settler(
        consumer,
        None,
        atomic=False,
        settled=lambda batch, answers: ended.update(
            (run.delivery.id, applied) for (run, _), applied in zip(batch, answers, strict=True)
        ),
        put_off=lambda batch: put_off.append([run.delivery.id for run, _ in batch]),
        logger=logging.getLogger("camora.test"),
    )
    return made, ended, put_off


def submit(made: Settler, *ids: str) -> None:
    for job_id in ids:
        one = run(job_id)
        made.submit(one, VERDICTS.settlement(one, Outcome(kind=OutcomeKind.SUCCEEDED)))


async def test_what_ends_at_the_same_moment_is_settled_together() -> None:
    consumer = Scripted()
    made, ended, _ = settler(consumer)
    submit(made, "a", "b", "c")
    await made.drain()
    assert consumer.calls == [["a", "b", "c"]]
    assert ended == {"a": True, "b": True, "c": True}


async def test_a_broker_that_is_away_is_asked_again_until_it_is_back() -> None:
    consumer = Scripted(BrokerUnavailable("away"), BrokerUnavailable("away"))
    made, ended, _ = settler(consumer)
    submit(made, "a")
    await made.drain()
    assert consumer.calls == [["a"]] * 3
    assert ended == {"a": True}


async def test_what_ends_while_a_server_is_away_does_not_wait_for_it() -> None:
    """A broker of many servers answers for those that are there, once it is asked for them."""

    def away(settlements: Sequence[Settlement]) -> list[bool]:
        submit(made, "there")
        raise BrokerUnavailable("its server is away")

    consumer = Scripted(away, lambda settlements: [None, True])
    made, ended, put_off = settler(consumer)
    submit(made, "gone")
    await made.drain()
    assert consumer.calls == [["gone"], ["gone", "there"], ["gone"]]
    assert put_off == [["gone"]]
    assert ended == {"there": True, "gone": True}


async def test_one_that_cannot_be_settled_does_not_take_the_others_along() -> None:
    def refuse_b(settlements: Sequence[Settlement]) -> list[bool]:
        if any(item.delivery.id == "b" and item.action is Action.ACK for item in settlements):
            raise ValueError("b cannot be stored")
        return [True] * len(settlements)

    consumer = Scripted(*[refuse_b] * 10)
    made, ended, _ = settler(consumer)
    submit(made, "a", "b", "c")
    await made.drain()
    assert ended == {"a": True, "b": True, "c": True}
    # b was tried again, and kept as a dead letter in the end.
    assert consumer.calls == [["a", "b", "c"], ["a"], *[["b"]] * 4, ["b"], ["c"]]


@pytest.mark.parametrize(
    ("rejected", "kept"),
    [((BrokerUnavailable("away"),), [1]), ((ValueError("too much"), True), [1, 0])],
    ids=["the broker is away", "they are what is wrong"],
)
async def test_what_follows_an_unsettled_job_is_not_given_up_while_the_broker_is_away(
    rejected: tuple[Any, ...], kept: list[int]
) -> None:
    asked: list[Settlement] = []

    class Asked(Scripted):
        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
            asked.extend(settlements)
            return await super().settle(settlements)

    refused = [ValueError("no")] * 4  # the settlement itself is tried so often
    made, ended, _ = settler(Asked(*refused, *rejected))
    one = run("a")
    after = Envelope(id="b", task="work", queue="default", body=b"")
    settled = VERDICTS.settlement(one, Outcome(kind=OutcomeKind.SUCCEEDED))
    made.submit(one, msgspec.structs.replace(settled, successors=(after,)))
    await made.drain()
    assert [len(ask.successors) for ask in asked if ask.action is Action.REJECT] == kept
    assert ended == {"a": rejected[-1] is True}


async def test_a_refused_settlement_is_told() -> None:
    made, ended, _ = settler(Scripted(False))
    submit(made, "a")
    await made.drain()
    assert ended == {"a": False}
