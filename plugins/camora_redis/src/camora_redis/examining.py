"""What `camora doctor` looks at in one store. Nothing is changed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from camora.errors import BrokerUnavailable, ConfigurationError
from camora.interfaces import CheckResult

from camora_redis.calling import answered
from camora_redis.errors import Unusable
from camora_redis.link import Link
from camora_redis.opening import check_server, facts, server_info
from camora_redis.queues import known_queues
from camora_redis.store import Store
from camora_redis.topology import Sentinels

__all__ = ["examine"]

_CLOSED = "cannot be looked at: the server does not let this user ask"
_PINGS = 7
_FAR = 0.05
"""Seconds for a round trip from which on somebody is far away."""
_NEARLY_FULL, _FULL = 0.75, 0.9
"""Of maxmemory."""
_CLOCKS = 1.0
"""Seconds between two clocks that are one too many."""
_FORGOTTEN = 60.0
"""Seconds after which a consumer that takes nothing is gone: one that lives asks every few seconds."""
_MOST = 100
"""So many queues are looked at."""
_SHOWN = 3
_LOSES = {
    "always": "nothing that was acknowledged is lost",
    "everysec": "a crash of the machine may lose the last second",
    "no": "a crash of the machine may lose the last half minute",
}


async def examine(part: str, store: Store, *, holds_jobs: bool) -> CheckResult:
    """One part of a store. `holds_jobs` is whether it is the broker's, or only keeps results."""
    link = Link(store, store.label)
    try:
        return await _PARTS[part](link, holds_jobs)
    except Unusable as error:
        if error.code != "NOPERM":
            raise
        return _fine(link, _CLOSED)
    finally:
        await link.close()


def _fine(link: Link, text: str, advice: str = "") -> CheckResult:
    return CheckResult(ok=True, text=f"{link.who}: {text}", fix=advice)


def _failed(link: Link, text: str, fix: str) -> CheckResult:
    return CheckResult(ok=False, text=f"{link.who}: {text}", fix=fix)


async def _server(link: Link, holds_jobs: bool) -> CheckResult:
    """Whether it is there and will do, which version, and how far away."""
    del holds_jobs
    try:
        await check_server(link)
    except ConfigurationError as error:
        return CheckResult(ok=False, text=str(error), fix="correct it as said, in the URL or on the server")
    except BrokerUnavailable as error:
        return CheckResult(ok=False, text=str(error), fix="start it, or wait: workers and dispatches wait for it too")
    times = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        await answered(link, link.call("", "PING"))
        times.append(time.perf_counter() - began)
    away = statistics.median(times)
    text = f"{await _version(link)}, {await _protocol(link)}, {away * 1000:.1f} ms for a round trip"
    far = "it is far away, and each job needs some round trips: let workers run nearer to it" if away > _FAR else ""
    return _fine(link, text, far)


async def _version(link: Link) -> str:
    known = await facts(link)
    if "valkey_version" in known:
        return f"Valkey {known['valkey_version']}"
    return f"Redis {known['redis_version']}" if "redis_version" in known else "a server of unknown version"


async def _protocol(link: Link) -> str:
    try:
        said: Any = await answered(link, link.call("", "HELLO"))
    except Unusable:
        return "RESP of unknown version"
    pairs = said.items() if isinstance(said, Mapping) else zip(said[::2], said[1::2], strict=True)
    return f"RESP {dict(pairs).get(b'proto', '?')}"


async def _nodes(link: Link) -> list[tuple[str, dict[str, str]]]:
    """What each server that holds data says of itself, with a key of it."""
    await answered(link, link.call("", "PING"))  # then it is known which there are
    return [(key, await server_info(link, key)) for key in link.topology.homes()]


async def _memory(link: Link, holds_jobs: bool) -> CheckResult:
    """Whether it throws data away when it is full, and how full it is."""
    texts, advice = [], ""
    for _, known in await _nodes(link):
        limit, used = int(known.get("maxmemory", 0)), int(known.get("used_memory", 0))
        policy = known.get("maxmemory_policy", "noeviction")
        if not limit:
            texts.append(f"{_size(used)} used, no limit set")
            continue
        share = used / limit
        text = f"{_size(used)} of {_size(limit)} used ({share:.0%}), maxmemory-policy {policy}"
        if policy != "noeviction":
            why = f"{text}: it evicts keys when it is full, and {'jobs' if holds_jobs else 'results'} may be lost"
            fix = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file"
            if holds_jobs:
                return _failed(link, why, fix)
            text, advice = why, fix
        room = "raise maxmemory, or let more workers drain the queues: when it is full, dispatches are refused"
        if share >= _FULL:
            return _failed(link, f"{text}: it is nearly full", room)
        texts.append(text)
        advice = advice or (room if share >= _NEARLY_FULL else "")
    return _fine(link, "; ".join(dict.fromkeys(texts)), advice)


async def _persistence(link: Link, holds_jobs: bool) -> CheckResult:
    """What is left after a restart."""
    del holds_jobs
    texts, advice = [], ""
    for key, known in await _nodes(link):
        for name in ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"):
            if known.get(name, "ok") != "ok":
                fix = "look at its log, and whether its disk is full or may not be written"
                return _failed(link, f"it cannot write to its disk ({name}: {known[name]})", fix)
        saves = await _config(link, key, "save")
        if known.get("aof_enabled") == "1":
            sync = await _config(link, key, "appendfsync")
            loses = _LOSES.get(sync or "", "")
            texts.append(f"append-only file, appendfsync {sync or 'unknown'}{loses and ': '}{loses}")
        elif saves:
            texts.append(f"snapshots only (save {saves}): a crash loses what came after the last one")
            advice = "CONFIG SET appendonly yes, and the same in its configuration file"
        elif saves is None:
            texts.append("no append-only file; its snapshots cannot be looked at")
            advice = "make sure that appendonly yes is set"
        else:
            texts.append("it keeps nothing on its disk: a restart loses all jobs and results")
            advice = "CONFIG SET appendonly yes, and the same in its configuration file"
    return _fine(link, "; ".join(dict.fromkeys(texts)), advice)


async def _config(link: Link, key: str, name: str) -> str | None:
    """A setting of the server's; None where we may not look."""
    try:
        answer: Any = await answered(link, link.call(key, "CONFIG", "GET", name))
    except BrokerUnavailable:
        return None
    values = list(answer.values()) if isinstance(answer, Mapping) else answer[1::2]
    return values[0].decode() if values else None


async def _copies(link: Link, holds_jobs: bool) -> CheckResult:
    """Replicas, the Sentinels that watch them, or the nodes of the cluster."""
    del holds_jobs
    wanted, texts, advice = link.store.settings.wait_replicas, [], ""
    counts = []
    for _, known in await _nodes(link):
        replicas = [value for name, value in known.items() if name.startswith("slave") and "state=" in value]
        counts.append(sum("state=online" in value for value in replicas))
    least = min(counts, default=0)
    if wanted > least:
        what = f"{least} replica{'' if least == 1 else 's'} in sync, and wait_replicas = {wanted}"
        return _failed(
            link, f"{what}: a dispatch that asks for it waits in vain", "add replicas, or lower wait_replicas"
        )
    texts.append(f"{least} replica{'' if least == 1 else 's'} in sync")
    if link.topology.clustered:
        found = await _cluster(link)
        if not found.ok:
            return found
        texts.append(found.text)
        if not least:
            advice = "add replicas: while a node is down, its queues stand still"
    if isinstance(link.topology, Sentinels):
        found = await _sentinels(link, link.topology)
        if not found.ok:
            return found
        texts.append(found.text)
        advice = found.fix
        if not least:
            advice = advice or "add replicas: there is none that could take over"
    return _fine(link, "; ".join(texts), advice)


async def _cluster(link: Link) -> CheckResult:
    text: Any = await answered(link, link.call("", "CLUSTER", "INFO"))
    known = dict(line.split(":", 1) for line in text.decode().split() if ":" in line)
    state, slots, nodes = known["cluster_state"], known["cluster_slots_ok"], known["cluster_known_nodes"]
    masters = known["cluster_size"]
    if state != "ok" or slots != "16384":
        fix = "see CLUSTER NODES; start the nodes that failed, or give their slots to others"
        return _failed(link, f"cluster_state {state}, {slots} of 16384 slots are served", fix)
    return CheckResult(ok=True, text=f"all slots are served by {masters} masters among {nodes} nodes")


async def _sentinels(link: Link, topology: Sentinels) -> CheckResult:
    told = await topology.told(min(2.0, link.store.settings.timeout))
    silent = [f"{host}:{port}" for (host, port), said in told.items() if isinstance(said, BaseException)]
    known = [said[topology.service] for said in told.values() if isinstance(said, Mapping) and topology.service in said]
    if not known:
        return _failed(link, f"no Sentinel watches {topology.service!r}", "correct the name of the service in the URL")
    total, quorum = max(int(one["num-other-sentinels"]) for one in known) + 1, int(known[0]["quorum"])
    text = f"{total} Sentinel{'' if total == 1 else 's'} watch {topology.service!r}, quorum {quorum}"
    if total < quorum:
        return _failed(link, f"{text}: they can never agree", "start more Sentinels, or lower the quorum")
    if total < 3:
        fix = "run at least three Sentinels on three machines: fewer cannot agree when one is lost"
        return CheckResult(ok=True, text=text, fix=fix)
    if silent:
        fix = "start them, or take them out of the URL"
        return CheckResult(ok=True, text=f"{text}; no answer from {', '.join(silent)}", fix=fix)
    return CheckResult(ok=True, text=text)


async def _clock(link: Link, holds_jobs: bool) -> CheckResult:
    """How far the server's clock and this machine's are apart."""
    del holds_jobs
    began = time.time()
    seconds, micros = await answered(link, link.call("", "TIME"))
    here = (began + time.time()) / 2
    apart = int(seconds) + int(micros) / 1e6 - here
    text = f"the server's clock is {abs(apart):.3f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    if abs(apart) > _CLOCKS:
        return _fine(link, text, "let both follow a time server (NTP): delays count from the dispatcher's clock")
    return _fine(link, text)


async def _consumers(link: Link, holds_jobs: bool) -> CheckResult:
    """Consumers and groups that nobody stands for any more."""
    del holds_jobs
    keys, dead, strangers, count, idle = link.store.keys, [], [], 0, 0
    for queue in (await known_queues(link))[:_MOST]:
        stream = keys.of_queue(queue)
        for group in await _rows(link, stream, "GROUPS"):
            name = group["name"].decode()
            if name != keys.group:
                strangers.append(f"{name} on {stream}")
                continue
            for one in await _rows(link, stream, "CONSUMERS", name):
                count += 1
                if int(one["idle"]) <= _FORGOTTEN * 1000:
                    continue
                idle += 1
                if int(one["pending"]):
                    dead.append(f"{one['name'].decode().split('|')[0]} ({one['pending']} jobs of {queue!r})")
    text = f"{count} consumer{'' if count == 1 else 's'} of group {keys.group!r}"
    text += f", {idle} of them silent for long: workers that sweep forget them" if idle else ""
    if dead:
        return _fine(
            link,
            f"{text}; gone with jobs on loan: {', '.join(dead[:10])}",
            "start a worker for these queues: it takes them over",
        )
    if strangers:
        return _fine(
            link,
            f"{text}; groups that are not ours: {', '.join(strangers[:10])}",
            "if nobody uses them: XGROUP DESTROY STREAM GROUP",
        )
    return _fine(link, text)


async def _rows(link: Link, stream: str, *words: str) -> list[dict[str, Any]]:
    """XINFO of a stream; nothing where there is none."""
    try:
        answer: Any = await answered(link, link.call(stream, "XINFO", words[0], stream, *words[1:]))
    except Unusable:
        raise
    except BrokerUnavailable as error:
        if "no such key" not in str(error):
            raise
        return []
    rows = (row.items() if isinstance(row, Mapping) else zip(row[::2], row[1::2], strict=True) for row in answer)
    return [{name.decode(): value for name, value in row} for row in rows]


async def _queues(link: Link, holds_jobs: bool) -> CheckResult:
    """Which queues take the most memory, by samples."""
    del holds_jobs
    keys, sizes = link.store.keys, {}
    names = await known_queues(link)
    for queue in names[:_MOST]:
        stream = keys.of_queue(queue)
        parts = [stream, keys.failures_of(queue), *(keys.helper(queue, name) for name in ("index", "bodies", "done"))]
        found = await answered(link, link.calls([(part, ("MEMORY", "USAGE", part, "SAMPLES", 5)) for part in parts]))
        sizes[queue] = sum(size or 0 for size in found)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_SHOWN]
    shown = ", ".join(f"{queue} {_size(size)}" for queue, size in largest if size)
    total = f"{len(names)} queue{'' if len(names) == 1 else 's'}"
    return _fine(link, f"{total}; the largest: {shown}" if shown else total)


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


_PARTS: Mapping[str, Callable[[Link, bool], Awaitable[CheckResult]]] = {
    "server": _server,
    "memory": _memory,
    "persistence": _persistence,
    "copies": _copies,
    "clock": _clock,
    "consumers": _consumers,
    "queues": _queues,
}
