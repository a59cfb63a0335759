"""The way to the servers: one wire to each that is needed, made again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Hashable, Sequence
from importlib import resources
from typing import Any

import attrs
from camora.errors import BrokerUnavailable, ConfigurationError
from redis.exceptions import AuthenticationError, RedisClusterException, RedisError

from camora_redis.errors import ConnectionLost, ServerError, reconnects, unavailable
from camora_redis.store import Store
from camora_redis.topology import Topology
from camora_redis.wire import Wire, pack

__all__ = ["Link", "Script", "script"]

_PATIENCE = 2.0
"""Seconds in which keys that are moving, and masters that are changing, are asked for again."""
_PASSING = frozenset({"MOVED", "ASK", "TRYAGAIN"})


@attrs.frozen
class Script:
    """A script of the server's, known there by the digest of its text."""

    text: str = attrs.field(repr=False)
    digest: str


def script(name: str) -> Script:
    """The script of this name, with what all scripts share before it."""
    folder = resources.files("camora_redis") / "scripts"
    text = "".join((folder / f"{part}.lua").read_text() for part in ("common", name))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Link:
    """Calls servers for one owner, in one event loop. `who` begins its error texts.

    Every call has the store's timeout, and raises `BrokerUnavailable` when there is no answer, or none that helps;
    `ConnectionLost` where it may have been done all the same.
    """

    def __init__(self, store: Store, who: str) -> None:
        self.store = store
        self.who = who
        self.topology: Topology = store.topology.twin()
        self._timeout = store.settings.timeout
        self._wires: dict[Hashable, Wire] = {}
        self._opening: dict[Hashable, asyncio.Task[Wire]] = {}
        self._closed = False

    # Calling

    async def call(self, key: str, *words: Any) -> Any:
        """Send one command to the server of a key; its answer."""
        return await self._answer(key, pack(words))

    async def run(self, what: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script on the server of its keys; its answer."""
        packed = pack(("EVALSHA", what.digest, len(keys), *keys, *arguments))
        try:
            return await self._answer(keys[0], packed)
        except ServerError as error:
            if error.code != "NOSCRIPT":
                raise unavailable(self.who, error) from error
        return await self._answer(keys[0], pack(("EVAL", what.text, len(keys), *keys, *arguments)))

    async def calls(self, commands: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Send commands, each to the server of its key, together; all answers, in order."""
        if not commands:
            return []
        return list(await asyncio.gather(*(self.call(key, *words) for key, words in commands)))

    async def _answer(self, key: str, packed: bytes) -> Any:
        until = 0.0
        while True:
            wire = await self.wire(key)
            answer = await wire.send(packed)
            if not isinstance(answer, ServerError):
                return answer
            if answer.code == "NOSCRIPT":
                raise answer
            await self._after(wire, answer)
            now = asyncio.get_running_loop().time()
            until = until or now + _PATIENCE
            if answer.code not in _PASSING or now > until:
                raise self._told(answer)
            if answer.code == "ASK":
                asked = await self._ask(answer, packed)
                if not isinstance(asked, ServerError):
                    return asked
                if asked.code not in _PASSING:
                    raise self._told(asked)
            await asyncio.sleep(0.02)

    def _told(self, error: ServerError) -> Exception:
        if error.code in ("ERR", "WRONGTYPE", "NOGROUP", "BUSYGROUP"):
            return error
        return unavailable(self.who, error)

    async def _after(self, wire: Wire, error: ServerError) -> None:
        """Do what may lead to the right server."""
        if error.code == "MOVED":
            if not self.topology.clustered:
                host, _, port = str(error).split()[2].rpartition(":")
                await self.topology.connect_to(host, int(port), self._timeout)
            with contextlib.suppress(RedisError, RedisClusterException, OSError):
                await self.topology.look_now(self._timeout)
        elif reconnects(error):
            self.topology.look_again()
            wire.abort(ConnectionLost(str(error)))

    async def _ask(self, error: ServerError, packed: bytes) -> Any:
        """A key is on its way: ask where it goes, this once."""
        host, _, port = str(error).split()[2].rpartition(":")
        moving = await self.topology.connect_to(host, int(port), self._timeout)
        wire = await self._handed_over(moving)
        try:
            asking, answer = wire.send(pack(("ASKING",))), wire.send(packed)
            await asking
            return await answer
        finally:
            await wire.close()

    # Wires

    async def wire(self, key: str) -> Wire:
        """An open wire to the server of a key. Raises `BrokerUnavailable` or `ConfigurationError`."""
        home = self.topology.home(key)
        wire = self._wires.get(home)
        if wire is not None and not wire.closed:
            return wire
        opening = self._opening.get(home)
        if opening is None or opening.done():
            opening = asyncio.get_running_loop().create_task(self._open(key))
            self._opening[home] = opening
        try:
            # Shielded: whoever is cancelled while waiting must not take it away from the others.
            return await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening.get(home) is opening:
                del self._opening[home]

    async def _open(self, key: str) -> Wire:
        wire = await self.new_wire(key)
        if self._closed:
            await wire.close()
            raise BrokerUnavailable(f"{self.who} is closed")
        # Where the key belongs may have become known only now.
        self._wires[self.topology.home(key)] = wire
        return wire

    async def new_wire(self, key: str, heard: Callable[[Any], None] | None = None) -> Wire:
        """A wire of the caller's own to the server of a key: for calls that block, and for listening."""
        if self._closed:
            raise BrokerUnavailable(f"{self.who} is closed")
        try:
            connection = await self.topology.connect(key, self._timeout)
        except AuthenticationError as error:
            raise unavailable(self.who, ServerError(f"WRONGPASS {error}")) from error
        except (RedisError, RedisClusterException, OSError, ValueError) as error:
            self.topology.look_again()
            raise unavailable(self.who, error) from error
        return await self._handed_over(connection, heard)

    async def _handed_over(self, connection: Any, heard: Callable[[Any], None] | None = None) -> Wire:
        wire = Wire(self._timeout, heard)
        wire.take_over(connection)
        return wire

    # Its end

    async def close(self) -> None:
        """Close all wires. May be repeated."""
        self._closed = True
        for opening in list(self._opening.values()):
            with contextlib.suppress(BrokerUnavailable, ConfigurationError):
                await asyncio.shield(opening)
        wires, self._wires = list(self._wires.values()), {}
        for wire in wires:
            await wire.close()
        await self.topology.close()

    def abandon(self) -> None:
        """Let go of sockets whose event loop is gone. May be repeated, and called in any thread."""
        self._closed = True
        for wire in list(self._wires.values()):
            wire.abandon()
        self._wires = {}
