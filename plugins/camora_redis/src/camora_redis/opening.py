"""What server it is, and whether it will do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camora.errors import BrokerUnavailable, ConfigurationError

from camora_redis.calling import answered
from camora_redis.errors import LASTING, Unusable, code_of
from camora_redis.link import Link
from camora_redis.probing import speaks_plain, speaks_tls, wants_certificate
from camora_redis.scripting import script
from camora_redis.settings import split_url

__all__ = ["check_server", "risks", "server_info", "warn_of_risks"]

_OLDEST = (6, 2)
_PERMITTED = script("permitted")
_QUEUE = "camora.start"
"""A queue that nobody uses: only its names are needed."""
_BESIDE: dict[str, tuple[Any, ...]] = {
    "client|id": ("CLIENT", "ID"),
    "client|unblock": ("CLIENT", "UNBLOCK", 0),
    "wait": ("WAIT", 0, 1),
}
"""What no script may do; tried by themselves."""
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_logger = logging.getLogger("camora.redis")


async def server_info(link: Link, key: str = "", *sections: str) -> dict[str, str]:
    """What the server of a key says of itself: INFO, by name. Raises `BrokerUnavailable`."""
    text: Any = await answered(link, link.call(key, "INFO", *sections))
    if isinstance(text, str):
        text = text.encode()
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def check_server(link: Link) -> None:
    """Look whether the server will do.

    Raises `ConfigurationError` for what no waiting mends (it is too old, the password is wrong, a permission is
    missing …), and `BrokerUnavailable` for what may pass (it is not there, it is loading, it is a replica).
    """
    _check_files(link)
    try:
        _check_facts(link, await _facts_of_any(link))
        await _check_permissions(link)
    except BrokerUnavailable as error:
        reason = await _reason(link, error)
        if reason:
            raise ConfigurationError(f"{link.who}: {reason}") from error
        if isinstance(error, Unusable):
            raise ConfigurationError(str(error)) from error
        raise


async def _facts_of_any(link: Link) -> dict[str, str]:
    """Those of the first server, or in a cluster, when it is away, of another one."""
    try:
        return await facts(link)
    except Unusable:
        raise
    except BrokerUnavailable:
        for key in link.topology.homes() if link.topology.clustered else ():
            with contextlib.suppress(BrokerUnavailable):
                return await facts(link, key)
        raise


async def facts(link: Link, key: str = "") -> dict[str, str]:
    """What can be known of the server: INFO, or where its user may not ask that, HELLO, or nothing.

    Raises `BrokerUnavailable`.
    """
    try:
        return await server_info(link, key)
    except Unusable as error:
        if error.code != "NOPERM":
            raise
    try:
        said: Any = await answered(link, link.call(key, "HELLO"))
    except Unusable:
        return {}
    found = said.items() if isinstance(said, Mapping) else zip(said[::2], said[1::2], strict=True)
    named = {_text(name): _text(value) for name, value in found}
    return {
        f"{'valkey' if named.get('server') == 'valkey' else 'redis'}_version": named.get("version", ""),
        "redis_mode": named.get("mode", ""),
        "role": "slave" if named.get("role") == "replica" else named.get("role", ""),
    }


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _check_facts(link: Link, known: Mapping[str, str]) -> None:
    mode = known.get("redis_mode") or known.get("server_mode", "")
    version = known.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if "valkey_version" not in known and numbers and numbers < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise ConfigurationError(
            f"{link.who}: Redis {version} is too old; Redis {oldest} or later, or Valkey, is needed: upgrade the server"
        )
    if mode == "sentinel":
        raise ConfigurationError(
            f"{link.who}: it is a Sentinel: write redis+sentinel://HOST:PORT/SERVICE/DB, and name several of them"
        )
    if mode == "cluster" and not link.topology.clustered:
        raise ConfigurationError(f"{link.who}: it is a node of a cluster: write redis+cluster://HOST:PORT,HOST:PORT")
    if known.get("loading", "0") not in ("0", ""):
        raise BrokerUnavailable(f"{link.who}: it is loading its data into memory, and answers when that is done")
    if known.get("role") == "slave":
        master = ":".join(known[name] for name in ("master_host", "master_port") if name in known)
        hint = "name its master, or Sentinels: redis+sentinel://HOST:PORT/SERVICE/DB"
        raise BrokerUnavailable(
            f"{link.who}: it is a replica{f' of {master}' if master else ''}, and takes no writes (READONLY); {hint}"
        )


async def _check_permissions(link: Link) -> None:
    """Try all that is needed, each so that nothing changes. Raises `ConfigurationError` that names what is refused."""
    keys = link.store.keys
    trial = link.run(_PERMITTED, (keys.of_queue(_QUEUE),), keys.group, f"{keys.prefix}:{_QUEUE}")
    stream = keys.of_queue(_QUEUE)
    tried = [answered(link, trial), *(answered(link, link.call(stream, *words)) for words in _BESIDE.values())]
    # All at once: at the other end of a long line each round trip counts.
    answer, *others = await asyncio.gather(*tried, return_exceptions=True)
    if _is_refused(answer):
        refused = ["eval", "evalsha"] if "eval" in str(answer) else ["~"]
    elif isinstance(answer, BrokerUnavailable) and not isinstance(answer, Unusable) and link.topology.clustered:
        return  # its node is away, and the others are to be served
    elif isinstance(answer, BaseException):
        raise answer
    else:
        refused = [_text(one) for one in answer]
    # Some services do not know these commands at all: whoever needs them will be told.
    refused += [name for name, one in zip(_BESIDE, others, strict=True) if _is_refused(one)]
    if refused:
        raise ConfigurationError(f"{link.who}: {_lacking(link, refused)}")


def _is_refused(answer: Any) -> bool:
    return isinstance(answer, Unusable) and answer.code == "NOPERM"


def _lacking(link: Link, refused: Sequence[str]) -> str:
    keys, user = link.store.keys, link.topology.options.get("username") or "default"
    parts, rules = [], []
    commands = sorted(one for one in refused if one not in "~&")
    if commands:
        parts.append(f"run {', '.join(one.upper().replace('|', ' ') for one in commands)}")
        rules += [f"+{one}" for one in commands]
    if "~" in refused:
        names = [f"{keys.prefix}:", f"{{{keys.prefix}", *(name for name in (keys.stream, keys.failures) if name)]
        names += [f"{{{keys.stream}"] if keys.stream else []
        parts.append(f"use all keys that begin with {', '.join(names)}")
        rules += [f"~{name}*" for name in names]
    if "&" in refused:
        parts.append(f"use channels that begin with {keys.prefix}:")
        rules.append(f"&{keys.prefix}:*")
    return f"user {user!r} may not {', nor '.join(parts)} (NOPERM); allow it: ACL SETUSER {user} {' '.join(rules)}"


def _check_files(link: Link) -> None:
    for name in _FILES:
        path = link.topology.options.get(name)
        if path and not Path(path).is_file():
            raise ConfigurationError(f"{link.who}: {name} = {str(path)!r}: there is no such file")


# Why it failed, where the error alone does not say


async def _reason(link: Link, error: BrokerUnavailable) -> str:
    """What is wrong with the set-up; empty where it may be all right."""
    code = code_of(error.__cause__ or error)
    if code in ("CLOSED", "SILENT", "TLS", "NOREDIS", ""):
        return await _of_encryption(link, code)
    return ""


async def _of_encryption(link: Link, code: str) -> str:
    """Whether one side speaks TLS, and the other does not."""
    topology, timeout = link.topology, min(2.0, link.store.settings.timeout)
    if topology.options.get("path"):
        return ""
    host, port = split_url(topology.label)[0].hosts[0]
    if topology.label.startswith(("rediss", "valkeys")):
        if await speaks_plain(host, port, timeout):
            return "it does not speak TLS at this port: write redis:// instead of rediss://, or its port for TLS"
        if code == "CLOSED" and await wants_certificate(host, port, timeout):
            return LASTING["NOCERTIFICATE"]
    elif code != "SILENT" and not await speaks_plain(host, port, timeout) and await speaks_tls(host, port, timeout):
        return "it speaks TLS at this port: write rediss:// instead of redis://"
    return ""


# What works, and may end badly


async def risks(link: Link) -> list[str]:
    """What a worker is warned of. Empty also where the server does not let us look. Raises `BrokerUnavailable`."""
    try:
        known = await server_info(link)
    except Unusable:
        return []
    found = []
    policy, limit = known.get("maxmemory_policy", "noeviction"), known.get("maxmemory", "0")
    if policy != "noeviction" and limit != "0":
        found.append(
            f"it evicts keys when it is full (maxmemory-policy {policy}): jobs and results may be lost; set "
            "maxmemory-policy noeviction"
        )
    if known.get("aof_enabled") == "0" and not await _snapshots(link):
        found.append("it keeps nothing on its disk: a restart loses all jobs and results; set appendonly yes (or save)")
    return found


async def _snapshots(link: Link) -> bool:
    """Whether it saves by itself from time to time; taken to be so where we may not look."""
    try:
        answer: Any = await answered(link, link.call("", "CONFIG", "GET", "save"))
    except BrokerUnavailable:
        return True
    values = list(answer.values()) if isinstance(answer, Mapping) else answer[1::2]
    return not values or bool(values[0])


async def warn_of_risks(link: Link) -> None:
    """Log a warning for each risk, unless the server that would be asked is away."""
    found: Sequence[str] = ()
    with contextlib.suppress(BrokerUnavailable):
        found = await risks(link)
    for risk in found:
        _logger.warning("%s: %s", link.who, risk)
