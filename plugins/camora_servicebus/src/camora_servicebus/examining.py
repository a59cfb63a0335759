"""What `camora doctor` looks at in a namespace, part by part."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError
from camora.interfaces import CheckResult
from camora.units import duration_text, size_text

from camora_servicebus import judging
from camora_servicebus.applying import problem_of
from camora_servicebus.differences import Wanted, compared
from camora_servicebus.handles import NoEntity
from camora_servicebus.judging import APPLY
from camora_servicebus.looking import Look, Unseen
from camora_servicebus.store import Store

__all__ = ["examine"]

_PINGS = 5
_FAR = 0.05
"""Seconds for a round trip from which on somebody is far away."""
_AT_ONCE = 8
"""Connections: each entity that is looked at from outside takes one."""
_LEASE, _DELIVERIES = 30.0, 5
"""Of a worker whose settings say nothing."""
_NOT_BASIC = ("sessions", "duplicate_detection")
_MANAGER = f"{APPLY}, with a key or an identity that may manage the namespace"


async def examine(part: str, app: Any) -> CheckResult:
    """One part of what the app uses."""
    look = Look(app)
    try:
        return await _PARTS[part](look)
    except BrokerUnavailable as error:
        fix = "correct the URL, or clear the way there: workers and dispatches wait for it"
        return CheckResult(ok=False, text=str(error), fix=fix)
    except ConfigurationError as error:
        fix = "correct the key's name and the key, or give the identity a role in the namespace"
        return CheckResult(ok=False, text=str(error), fix=fix)
    finally:
        await look.close()


async def _namespace(look: Look) -> CheckResult:
    """Whether it can be reached, and lets us in."""
    store = look.store
    await look.let_in()
    text = f"it lets {_who(store)} in by AMQP{' over WebSockets' if store.settings.over_websockets else ''}"
    away = await _away(store)
    if away is None:
        return look.fine(text)
    far = "it is far away, and each job needs some round trips: let workers run in its region" if away > _FAR else ""
    return look.fine(f"{text}, {away * 1000:.1f} ms for a round trip", far)


def _who(store: Store) -> str:
    address, given = store.address, store.settings.credential
    if address.key:
        return f"key {address.key_name!r}"
    if address.signature:
        return "a signature that nobody renews"
    return "DefaultAzureCredential" if given is None else type(given).__name__


async def _away(store: Store) -> float | None:
    """Seconds for a round trip, by the time that TCP takes to connect; None where the way there is another."""
    if store.settings.over_websockets or store.settings.endpoint:
        return None
    times = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        try:
            async with asyncio.timeout(store.settings.timeout):
                _, writer = await asyncio.open_connection(store.address.host, store.address.port)
        except (OSError, TimeoutError):
            return None
        times.append(time.perf_counter() - began)
        writer.close()
        await writer.wait_closed()
    return statistics.median(times)


async def _rights(look: Look) -> CheckResult:
    """What we may do: send, receive, manage."""
    for one in look.receiving:
        sending = await _tried(look.largest(one.entity))
        if not isinstance(sending, NoEntity):
            break
    else:
        return look.fine("no queue of this app is there yet, so rights cannot be tried")
    entity = one.entity
    found = {
        "Send": sending,
        "Listen": await _tried(look.receivable(entity)),
        "Manage": await _tried(look.find(one)),
    }
    if silent := next((error for error in found.values() if isinstance(error, BrokerUnavailable)), None):
        raise silent
    may = [right for right, error in found.items() if error is None]
    missing = [right for right in ("Send", "Listen") if right not in may]
    if len(missing) == 2:
        return look.failed(
            f"{_who(look.store)} may neither send nor listen (tried with {entity!r})",
            "give it the rights Send and Listen (roles 'Azure Service Bus Data Sender' and '… Data Receiver')",
        )
    text = f"{_who(look.store)} may {', '.join(may)} (tried with {entity!r})"
    if isinstance(unseen := found["Manage"], Unseen):
        text += f"; the properties of queues cannot be seen {unseen}, which is all right for workers"
    if missing:
        return look.fine(text, f"workers need {missing[0]}, too; who only dispatches needs nothing but Send")
    return look.fine(text)


async def _tried(work: Awaitable[Any]) -> Exception | None:
    """None where it can be done."""
    try:
        await work
    except (CamoraError, NoEntity, Unseen) as error:
        return error
    return None


async def _queues(look: Look) -> CheckResult:
    """Those of the app: which there are, and whether they are what the app declares."""
    try:
        found = [await look.find(one) for one in look.wanted]
        counts = [await look.counts(one) for one in look.wanted]
    except Unseen as why:
        return await _queues_from_outside(look, why)
    changes = [compared(one, there) for one, there in zip(look.wanted, found, strict=True)]
    if impossible := [text for text in map(problem_of, changes) if text]:
        return look.failed("; ".join(impossible), f"change the declaration; {APPLY} --dry-run shows what is left")
    if missing := [change.wanted.entity for change in changes if change.action == "create"]:
        return look.failed(f"not there: {', '.join(missing)}", _MANAGER)
    settings = look.app.worker_settings
    most = _DELIVERIES if settings is None else settings.max_deliveries
    texts, wrong, advice = [], [], []
    for change, there, count in zip(changes, found, counts, strict=True):
        if there is not None:
            texts.append(judging.text_of_entity(change.wanted, there, count))
            wrong += judging.defects(change.wanted, there, most)
            advice += judging.advice(change, there, count)
    if wrong:
        return look.failed("; ".join(text for text, _ in wrong), "; ".join(dict.fromkeys(fix for _, fix in wrong)))
    return look.fine("; ".join(texts), "; ".join(advice))


async def _queues_from_outside(look: Look, why: Unseen) -> CheckResult:
    """Without the management interface: whether they are there."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def tried(one: Wanted) -> Exception | None:
        async with turns:
            # Sending to a subscription means to its topic.
            return await _tried((look.receivable if one.kind == "subscription" else look.largest)(one.entity))

    said = await asyncio.gather(*map(tried, look.wanted))
    missing = [one.entity for one, error in zip(look.wanted, said, strict=True) if isinstance(error, NoEntity)]
    if missing:
        return look.failed(f"not there: {', '.join(missing)}", _MANAGER)
    if silent := next((error for error in said if isinstance(error, BrokerUnavailable)), None):
        raise silent
    names = ", ".join(one.entity for one in look.wanted)
    return look.fine(
        f"there: {names}; lock duration, delivery count, sessions, duplicate detection, and how much they hold cannot "
        f"be seen {why}"
    )


async def _locks(look: Look) -> CheckResult:
    """How long a message stays a silent worker's, beside the worker's own lease."""
    settings = look.app.worker_settings
    lease = _LEASE if settings is None else settings.lease
    try:
        found = {one.entity: await look.find(one) for one in look.receiving}
    except Unseen as why:
        text = f"how long the queues lock a message cannot be seen {why}"
        return look.fine(f"a worker's lease is {duration_text(lease)}; {text}")
    locks = {entity: there["lock_duration"] for entity, there in found.items() if there is not None}
    if not locks:
        return look.fine("no queue of this app is there yet")
    listed = ", ".join(f"{entity} {duration_text(lock)}" for entity, lock in locks.items())
    text = (
        f"messages of a worker that falls silent are locked for up to: {listed}; its lease is {duration_text(lease)}. "
        "Locks are renewed while jobs run, however long"
    )
    return look.fine(text, "; ".join(judging.lock_advice(locks, lease)))


async def _limits(look: Look) -> CheckResult:
    """What the tier takes, and what the app wants to send."""
    try:
        tier = await look.tier()
        text = f"tier {tier}"
    except Unseen as why:
        tier, text = "unknown", f"its tier cannot be seen {why}"
    needy = [one.entity for one in look.wanted if one.kind != "queue" or any(map(one.said.get, _NOT_BASIC))]
    if tier == "basic" and needy:
        return look.failed(
            f"{text} has no topics, sessions and duplicate detection, which {', '.join(needy)} cannot do without",
            "move the namespace to the tier Standard, or leave them out of the declaration",
        )
    sizes = []
    for one in look.wanted:
        try:
            sizes.append(await look.largest(one.entity))
        except (NoEntity, ConfigurationError):
            continue
    if not sizes:
        return look.fine(text)
    smallest, limit = min(sizes), look.store.settings.max_message_size
    text += f"; a message may have {size_text(smallest)}, and this app sends up to {size_text(limit)}"
    if limit > smallest:
        fix = f"set max_message_size = {size_text(smallest)!r} in [broker]: what is larger is refused there"
        return look.failed(text, fix)
    return look.fine(text, f"max_message_size = {size_text(smallest)!r} in [broker] sends more" * (limit < smallest))


_PARTS: Mapping[str, Callable[[Look], Awaitable[CheckResult]]] = {
    "namespace": _namespace,
    "rights": _rights,
    "queues": _queues,
    "locks": _locks,
    "limits": _limits,
}
