"""Bodies that are too large for the service: kept in another store, and a claim sent instead ("claim check").

The store is any result backend: what it keeps of a job, it keeps of a body. The claim is the body of the message then,
so that it passes through retries, sessions, dead letters and requeueing as any other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import msgspec
from camora.errors import BrokerUnavailable, ConfigurationError
from camora.interfaces.broker import Consumer, Leases
from camora.interfaces.results import ResultBackend
from camora.message import Delivery, Envelope
from camora.outcome import Action, DeadLetter, ErrorInfo, JobRecord, Settlement, Status
from camora.plugins import load

from camora_servicebus.deferring import FAR

__all__ = ["ClaimingConsumer", "Claims"]

logger = logging.getLogger(__name__)

_MARK = b"\xc1camora-claim:"
"""What a claim begins with: no codec's message does, 0xC1 is nothing in JSON, MessagePack or pickle."""
_OWN, _SHARED = b"1:", b"n:"
"""A claim for one message, whose body is deleted with it; or for all copies that a topic makes, which end by time."""
_PAUSE = 5.0
"""Seconds after which a message is delivered again whose body could not be asked for."""


class Claims:
    """The store of large bodies: `limit` bytes travel at most, bodies are kept for `ttl` seconds. One loop's own."""

    def __init__(self, store: str | ResultBackend, *, limit: int, ttl: float) -> None:
        if isinstance(store, str):
            found: ResultBackend = load(strict=False).for_url("camora_result_backends", store).make(store)
            if found.private or store.startswith("memory:"):
                raise ConfigurationError(f"claim_check: {found!r} is of this process alone; workers need it, too")
            self._results = found
        else:
            self._results = store.twin()
        self.limit = limit
        self._ttl = ttl

    async def open(self) -> None:
        """Connect. Raises `BrokerUnavailable` or `ConfigurationError`."""
        await self._results.open()

    async def close(self) -> None:
        """Let go of connections."""
        await self._results.close()

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._results.abandon()

    async def check_in(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """The same, with claims for bodies that are too large, once these are stored. Raises `BrokerUnavailable`."""
        made: list[Envelope] = []
        records: list[JobRecord] = []
        for envelope in envelopes:
            if len(envelope.body) > self.limit:
                name = f"claim-{uuid4().hex}"
                records.append(_record(name, envelope, self._ttl))
                kind = _SHARED if (envelope.options or {}).get("topic") is not None else _OWN
                envelope = msgspec.structs.replace(envelope, body=_MARK + kind + name.encode())
            made.append(envelope)
        if records:
            await self._results.store(records)
        return made

    async def fetch(self, names: Sequence[str]) -> list[bytes | None]:
        """The bodies; None for what is not there any more. Raises `BrokerUnavailable`."""
        return [None if record is None else record.value for record in await self._results.fetch(names)]

    async def forget(self, names: Sequence[str]) -> None:
        """Delete bodies that nobody needs any more. Raises nothing: what is left goes when its time is over."""
        try:
            await self._results.forget(names)
        except Exception as error:  # noqa: BLE001 -- the jobs are settled, whatever a store says
            logger.info("%d large bodies are not deleted, and stay for their time: %s", len(names), error)


def _record(name: str, envelope: Envelope, ttl: float) -> JobRecord:
    now = time.time_ns() // 1_000_000
    # A job that is due later has its time from then on.
    ttl += max(0.0, envelope.due / 1000 - time.time())
    return JobRecord(
        id=name, status=Status.SUCCEEDED, task=envelope.task, queue=envelope.queue, value=envelope.body, created=now,
        finished=now, ttl=ttl,
    )  # fmt: skip


def _claimed(body: bytes) -> tuple[str, bool] | None:
    """Under which name the body is kept, and whether for this message alone; None for one that is no claim."""
    if not body.startswith(_MARK):
        return None
    rest = body.removeprefix(_MARK)
    return rest[2:].decode(errors="replace"), rest.startswith(_OWN)


class ClaimingConsumer(Consumer):
    """A consumer that redeems claims, and makes them for what it sends; without a store it says that it needs one."""

    def __init__(self, inner: Consumer, claims: Claims | None, who: str) -> None:
        self._inner = inner
        self._claims = claims
        self._who = who
        self._own: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        """By receipt: under which name the body of this message alone is kept."""
        self._renewed: WeakKeyDictionary[Any, list[Envelope]] = WeakKeyDictionary()
        """By receipt: what follows it, with new claims, if its settlement has to be repeated."""
        self._ahead: list[Delivery] = []
        """Taken by a call that was cancelled before it had their bodies."""

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """With the bodies that were claimed. What has none any more becomes a dead letter that says so."""
        deliveries: Sequence[Delivery] = self._ahead[:limit]
        if deliveries:
            del self._ahead[:limit]
        else:
            deliveries = await self._inner.receive(limit, wait)
        try:
            return await self._redeemed(deliveries)
        except asyncio.CancelledError:
            self._ahead += deliveries
            raise

    async def _redeemed(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        claims = {one.receipt: claim for one in deliveries if (claim := _claimed(one.body)) is not None}
        if not claims:
            return deliveries
        if self._claims is None:
            await self._quietly([_unclaimed(one) for one in deliveries if one.receipt in claims])
            return [one for one in deliveries if one.receipt not in claims]
        try:
            bodies = dict(zip(claims, await self._claims.fetch([name for name, _ in claims.values()]), strict=True))
        except BrokerUnavailable as error:
            logger.warning("%s: %d large bodies cannot be fetched, later again: %s", self._who, len(claims), error)
            later = [one for one in deliveries if one.receipt in claims]
            await self._quietly([Settlement(delivery=one, action=Action.RELEASE, charged=False, delay=_PAUSE)
                                 for one in later])  # fmt: skip
            return [one for one in deliveries if one.receipt not in claims]
        found: list[Delivery] = []
        lost: list[Settlement] = []
        for one in deliveries:
            body = bodies.get(one.receipt)
            if one.receipt not in claims:
                found.append(one)
            elif body is None:
                lost.append(_lost(one, claims[one.receipt][0]))
            else:
                name, own = claims[one.receipt]
                if own:
                    self._own[one.receipt] = name
                found.append(msgspec.structs.replace(one, body=body))
        if lost:
            await self._quietly(lost)
        return found

    async def _quietly(self, settlements: Sequence[Settlement]) -> None:
        """What is not settled comes back with its lock, and is looked at again."""
        try:
            await self._inner.settle(settlements)
        except BrokerUnavailable as error:
            logger.warning("%s: %s", self._who, error)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """As the inner one, with claims for what is sent; large bodies go when their messages have ended for good."""
        if self._claims is None:
            return await self._inner.settle(settlements)
        answers = await self._inner.settle([await self._with_claims(one, self._claims) for one in settlements])
        over = [
            self._own[one.delivery.receipt]
            for one, answer in zip(settlements, answers, strict=True)
            if answer and one.delivery.receipt in self._own and _ends(one)
        ]
        if over:
            await self._claims.forget(over)
        return answers

    async def _with_claims(self, settlement: Settlement, claims: Claims) -> Settlement:
        envelopes = [*settlement.successors, *([settlement.envelope] if settlement.envelope else [])]
        if all(len(one.body) <= claims.limit for one in envelopes):
            return settlement
        receipt = settlement.delivery.receipt
        made = self._renewed.get(receipt)
        if made is None:
            made = self._renewed[receipt] = await claims.check_in(envelopes)
        again = made[-1] if settlement.envelope else None
        return msgspec.structs.replace(settlement, successors=tuple(made[: len(settlement.successors)]), envelope=again)

    def leases(self) -> Leases:
        """Those of the inner one."""
        return self._inner.leases()

    async def stop(self) -> None:
        """As the inner one."""
        await self._inner.stop()
        ahead, self._ahead = self._ahead, []
        if ahead:
            await self._quietly([Settlement(delivery=one, action=Action.RELEASE, charged=False) for one in ahead])

    async def close(self) -> None:
        """As the inner one."""
        await self._inner.close()


def _ends(settlement: Settlement) -> bool:
    """Whether nothing of this message is left: the next try has a claim of its own, a dead letter keeps the old one."""
    if settlement.action is Action.RETRY:
        if settlement.delivery.receipt.by.ordered:
            return False  # the message itself stays, and its own claim counts if what its session notes is lost
        assert settlement.envelope is not None
        return settlement.envelope.due <= (time.time() + FAR) * 1000  # else it stays as it is, set aside
    return settlement.action is Action.ACK


def _lost(delivery: Delivery, name: str) -> Settlement:
    return _buried(
        delivery,
        f"its body was too large for the service, and the store of claim_check does not have it any more ({name}): "
        "raise claim_ttl, or dispatch the job anew",
        error="camora_servicebus.ClaimLost",
    )


def _unclaimed(delivery: Delivery) -> Settlement:
    return _buried(
        delivery,
        "its body was too large for the service and lies in the store of claim_check, and this worker has none: set "
        "claim_check= for it as for the app that dispatched the job, and requeue the job",
        error="camora_servicebus.NoClaimCheck",
    )


def _buried(delivery: Delivery, text: str, *, error: str) -> Settlement:
    logger.error("job %s of queue %r becomes a dead letter: %s", delivery.id, delivery.queue, text)
    letter = DeadLetter(
        id=delivery.id, queue=delivery.queue, body=delivery.body, reason="payload",
        error=ErrorInfo(type=error, text=text), deliveries=delivery.deliveries, died=time.time_ns() // 1_000_000,
    )  # fmt: skip
    return Settlement(delivery=delivery, action=Action.REJECT, letter=letter)
