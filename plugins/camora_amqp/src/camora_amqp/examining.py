"""What `camora doctor` looks at in a RabbitMQ. Nothing is changed."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from camora.interfaces import CheckResult
from pamqp import commands

from camora_amqp.confirming import Confirming
from camora_amqp.declaring import queue_arguments
from camora_amqp.errors import Refused, WireLost
from camora_amqp.link import HEARTBEAT, connect
from camora_amqp.messages import Outgoing
from camora_amqp.store import Store
from camora_amqp.wire import Wire

__all__ = ["examine"]

_OLDEST = (3, 10)
"""The first version in which messages of quorum queues can expire, without which nothing can be delayed there."""
_PINGS = 7
_FAR = 0.05
"""Seconds for a round trip from which on somebody is far away."""
_ALARM = 3.0
"""Seconds after which a message that is not answered is one too many: the server reads nothing more from us."""
_NOWHERE = "camora.doctor"
"""A queue that there never is."""
_DEFAULT_LEASE = 30.0
_NOT_FOUND = 404
_NOT_ALLOWED = 403


async def examine(part: str, app: Any) -> CheckResult:
    """One part of what the app uses."""
    store: Store = app.broker.database
    try:
        return await _PARTS[part](store, app)
    except (WireLost, Refused) as error:
        return _failed(store, str(error), "correct the URL, or start the server: workers and dispatches wait for it")


def _fine(store: Store, text: str, advice: str = "") -> CheckResult:
    return CheckResult(ok=True, text=f"{store.label}: {text}", fix=advice)


def _failed(store: Store, text: str, fix: str) -> CheckResult:
    return CheckResult(ok=False, text=f"{store.label}: {text}", fix=fix)


async def _connect(store: Store) -> Wire:
    return await connect(store, purpose="doctor")


async def _asked(wire: Wire, request: Any) -> Any:
    """The answer, or how it was refused. A channel for each question, because a refusal closes it."""
    channel = await wire.channel()
    try:
        return await channel.call(request)
    except Refused as error:
        return error
    finally:
        if channel.error is None:
            await channel.call(commands.Channel.Close(200, "", 0, 0))


def _version_of(wire: Wire) -> tuple[int, ...]:
    """Of the server at the other end."""
    return tuple(int(number) for number in re.findall(r"\d+", str(wire.server.get("version", "")))[:3])


# Parts


async def _server(store: Store, app: Any) -> CheckResult:
    """Whether it lets us in, which version it is, and how far away."""
    del app
    wire = await _connect(store)
    try:
        product, version = wire.server.get("product", "a server of unknown kind"), wire.server.get("version", "?")
        text = f"{product} {version} at {wire.label}, virtual host {store.address.vhost!r}, user {store.address.user!r}"
        if product == "RabbitMQ" and _version_of(wire) < _OLDEST:
            return _failed(
                store,
                f"{text}: it is too old. Before 3.10 messages in quorum queues do not expire: nothing could be delayed",
                "update it to 3.10 or later; with queue_type='classic' for all queues older ones may do, untested",
            )
        times = []
        for _ in range(_PINGS):
            began = time.perf_counter()
            channel = await wire.channel()
            times.append(time.perf_counter() - began)
            await channel.call(commands.Channel.Close(200, "", 0, 0))
        away = statistics.median(times)
        far = "it is far away, and each job needs some round trips: let workers run nearer to it" if away > _FAR else ""
        return _fine(store, f"{text}, {away * 1000:.1f} ms for a round trip", far)
    finally:
        await wire.close()


async def _nodes(store: Store, app: Any) -> CheckResult:
    """Whether each node of the URL lets us in."""
    del app

    async def look(host: tuple[str, int]) -> str:
        try:
            wire = await Wire.connect(
                store.address,
                host,
                timeout=store.settings.timeout,
                heartbeat=HEARTBEAT,
                name=f"{store.settings.name}: doctor",
                context=store.context,
            )
        except (WireLost, Refused) as error:
            return str(error)
        await wire.close()
        return ""

    hosts = store.address.hosts
    said = await asyncio.gather(*map(look, hosts))
    silent = [f"{host}:{port} ({why})" for (host, port), why in zip(hosts, said, strict=True) if why]
    count = f"{len(hosts) - len(silent)} of {len(hosts)} nodes of the URL let us in"
    if silent:
        return _fine(store, f"{count}; not {', '.join(silent)}", "start them, or take them out of the URL")
    if len(hosts) == 1:
        return _fine(store, "one node is named; of a cluster name several: amqp://…@one:5672,two:5672/vhost")
    return _fine(store, count)


async def _rights(store: Store, app: Any) -> CheckResult:
    """What the user may do, tried with a queue that there is not, so that nothing comes of it."""
    del app
    name = store.settings.prefix + _NOWHERE
    wire = await _connect(store)
    try:
        tries = {
            "configure": commands.Queue.Delete(0, name, False, False, False),
            "read": commands.Basic.Get(0, name, False),
        }
        found = {right: await _asked(wire, request) for right, request in tries.items()}
        missing = [
            right for right, answer in found.items() if isinstance(answer, Refused) and answer.code == _NOT_ALLOWED
        ]
        if not await _may_write(wire):
            missing.append("write")
        if missing:
            user, vhost = store.address.user, store.address.vhost
            return _failed(
                store,
                f"user {user!r} may not {', '.join(missing)} (tried with queue {name!r} and the default exchange)",
                f"rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*', or patterns that allow "
                f"'{store.settings.prefix}.*', 'camora\\..*' and 'amq\\.(default|gen.*)'",
            )
        return _fine(store, f"user {store.address.user!r} may configure, read and write (tried with queue {name!r})")
    finally:
        await wire.close()


async def _may_write(wire: Wire) -> bool:
    channel = await Confirming.on(wire)
    try:
        async with asyncio.timeout(_ALARM):
            await channel.send([Outgoing("", "", _NOWHERE, b"\x00\x00", b"")])
    except WireLost as error:
        if "ACCESS_REFUSED" in str(error):
            return False
        raise
    except TimeoutError:
        pass  # an alarm: its own part says so
    return True


async def _queues(store: Store, app: Any) -> CheckResult:
    """Those of the app: which there are, of which kind, how full; and whether they are what the app declares."""
    names = sorted({*app.tasks.queues(), *(queue.name for queue in app.queues)})
    app.broker.declare(app.queues)
    wire = await _connect(store)
    try:
        found = {name: await _compared(wire, store, name) for name in names}
    finally:
        await wire.close()
    wrong = [told.text for told in found.values() if isinstance(told, Refused)]
    if wrong:
        fix = (
            "declare it as it is there; or, once it is empty, delete it there (rabbitmqctl delete_queue); or rename it"
        )
        return _failed(store, f"not as this app declares it: {'; '.join(wrong)}", fix)
    there = {name: told for name, told in found.items() if told is not None and not isinstance(told, Refused)}
    texts = [
        f"{name} ({_kind(store, name)}, {told.message_count} waiting, {told.consumer_count} consumers)"
        for name, told in there.items()
    ]
    if missing := [name for name, told in found.items() if told is None]:
        texts.append(f"made when first used: {', '.join(missing)}")
    advice = []
    if lonely := [name for name, told in there.items() if told.message_count and not told.consumer_count]:
        advice.append(f"jobs wait, and no worker takes them: camora worker --queues {lonely[0]}")
    classic = [name for name in there if _kind(store, name).startswith("classic")]
    if classic and len(store.address.hosts) > 1:
        advice.append(f"a classic queue is on one node, and away with it: make {', '.join(classic)} a quorum queue")
    return _fine(store, "; ".join(texts), "; ".join(advice))


def _kind(store: Store, name: str) -> str:
    queue = store.topology.queue(name)
    if not queue.declare:
        return "declared elsewhere"
    return queue.kind(store.settings) + ("" if queue.durable else ", not durable")


async def _compared(wire: Wire, store: Store, name: str) -> Any:
    """How full the queue is; None if there is none yet; `Refused` if it is another than the app declares."""
    queue, full = store.topology.queue(name), store.names.queue(name)
    told = await _asked(wire, commands.Queue.Declare(0, full, True, False, False, False, False, {}))
    if isinstance(told, Refused):
        return None if told.code == _NOT_FOUND and queue.declare else told
    if not queue.declare:
        return told
    # Declaring what is there already changes nothing, and compares.
    arguments = queue_arguments(queue, store)
    return await _asked(wire, commands.Queue.Declare(0, full, False, queue.durable, False, False, False, arguments))


async def _alarms(store: Store, app: Any) -> CheckResult:
    """Whether it takes messages at this moment: a message that no queue gets is confirmed, or not."""
    del app
    wire = await _connect(store)
    try:
        channel = await Confirming.on(wire)
        try:
            async with asyncio.timeout(_ALARM):
                # By the first one the connection becomes one that publishes: those are blocked.
                for _ in range(2):
                    await channel.send([Outgoing("", "", _NOWHERE, b"\x00\x00", b"")])
        except TimeoutError:
            why = wire.blocked or "it does not say why"
            return _failed(
                store,
                f"it takes no messages: {why}",
                "rabbitmqctl status names the alarm: free memory or disk, or raise vm_memory_high_watermark or lower "
                "disk_free_limit",
            )
        return _fine(store, "no alarm: it takes messages")
    finally:
        await wire.close()


async def _times(store: Store, app: Any) -> CheckResult:
    """How long a worker may be silent, and a job may run."""
    settings = app.worker_settings
    lease = settings.lease if settings is not None else _DEFAULT_LEASE
    heartbeat = store.settings.heartbeat_of(lease)
    text = (
        f"a worker that dies is noticed at once, a machine that vanishes within {2 * heartbeat:g} s (two heartbeats of "
        f"{heartbeat:g} s); a lease is {lease:g} s. Messages of jobs that run for long are exchanged before the server "
        f"takes them back, by ack_timeout = {store.settings.ack_timeout:g} s; that must not be more than the server's "
        "consumer_timeout (30 minutes, if nobody has set it), which cannot be asked for"
    )
    if 2 * heartbeat > lease * 1.5:
        return _fine(
            store, text, f"its jobs start elsewhere only then: leave heartbeat out, or set it to {lease / 2:g}"
        )
    return _fine(store, text)


_PARTS: Mapping[str, Callable[[Store, Any], Awaitable[CheckResult]]] = {
    "server": _server,
    "nodes": _nodes,
    "rights": _rights,
    "queues": _queues,
    "alarms": _alarms,
    "times": _times,
}
