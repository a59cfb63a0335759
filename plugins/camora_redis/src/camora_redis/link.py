"""The way to the servers: one wire to each that is needed, made again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from camora.errors import BrokerUnavailable, ConfigurationError
from redis.exceptions import RedisError

from camora_redis.errors import ConnectionLost, ServerError, TooFewCopies, reconnects, unavailable
from camora_redis.keys import tag_of
from camora_redis.scripting import Script
from camora_redis.store import Store
from camora_redis.topology import Topology
from camora_redis.wire import Wire, pack

__all__ = ["Link"]

_PATIENCE = 2.0
"""Seconds in which keys that are moving, and masters that are changing, are asked for again."""
_PASSING = frozenset({"MOVED", "ASK", "TRYAGAIN"})
_GRACE = 0.1
"""Seconds that callers wait for a server that is known to be away: it may be back."""
_LISTEN_AGAIN = 1.0
"""Seconds until somebody else is asked to tell of new masters."""
_PAUSE = 0.02
_COPIERS = 8
"""How many publications may wait for the replicas of one server at a time."""
_ASKING = pack(("ASKING",))


class Link:
    """Calls servers for one owner, in one event loop. `who` begins its error texts.

    Every call has the store's timeout, or a shorter one of its own, and raises `BrokerUnavailable` when there is no
    answer, or none that helps; `ConnectionLost` where it may have been done all the same; `ServerError` for what only
    the caller can understand.
    """

    def __init__(self, store: Store, who: str, timeout: float | None = None) -> None:
        self.store = store
        self.who = who
        self.topology: Topology = store.topology.twin()
        self._timeout = min(timeout or store.settings.timeout, store.settings.timeout)
        self._wires: dict[str, Wire] = {}
        self._opening: dict[str, asyncio.Task[Exception | None]] = {}
        self._away: dict[str, Exception] = {}
        self._copiers: defaultdict[str, list[Wire]] = defaultdict(list)
        """Of each server, those that nobody uses in this moment."""
        self._copying: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_COPIERS))
        self._given: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._listening: asyncio.Task[None] | None = None
        self._listener: Wire | None = None
        self._closed = False

    # Calling

    async def call(self, key: str, *words: Any) -> Any:
        """Send one command to the server of a key; its answer."""
        return await self._answer(key, pack(words))

    async def run(self, what: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script on the server of its keys; its answer."""
        keys = self._declared(keys)
        packed = pack(("EVALSHA", what.digest, len(keys), *keys, *arguments))
        try:
            return await self._answer(keys[0], packed)
        except ServerError as error:
            if error.code != "NOSCRIPT":
                raise unavailable(self.who, error) from error
        return await self._answer(keys[0], pack(("EVAL", what.text, len(keys), *keys, *arguments)))

    async def run_copied(self, replicas: int, what: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """As `run`, and wait until as many replicas have it. Raises `TooFewCopies`.

        On a connection of its own: the server answers nothing else on it while it waits for replicas.
        """
        settings = self.store.settings
        keys = self._declared(keys)
        wait = pack(("WAIT", replicas, round(settings.wait_timeout * 1000)))
        packed = pack(("EVALSHA", what.digest, len(keys), *keys, *arguments))
        answer, copies = await self._waited(keys[0], packed, wait)
        if isinstance(answer, ServerError) and answer.code == "NOSCRIPT":
            packed = pack(("EVAL", what.text, len(keys), *keys, *arguments))
            answer, copies = await self._waited(keys[0], packed, wait)
        for one in (answer, copies):
            if isinstance(one, ServerError):
                raise unavailable(self.who, one)
        if copies < replicas:
            raise TooFewCopies(
                f"it is stored, but only {copies} of {replicas} replicas had it after {settings.wait_timeout:g} s"
            )
        return answer

    def _declared(self, keys: Sequence[str]) -> Sequence[str]:
        """In a cluster with one key more, which never exists.

        While a slot is moving key by key, a script would find half of what it needs. With a key that is missing among
        others, the server refuses it until the move is over. See `scripts/common.lua`.
        """
        return (*keys, f"{{{tag_of(keys[0])}}}:moving") if self.topology.clustered else keys

    async def _waited(self, key: str, packed: bytes, wait: bytes) -> Sequence[Any]:
        """What a command and a WAIT behind it are answered with."""
        until = asyncio.get_running_loop().time() + _PATIENCE
        longer = self.store.settings.wait_timeout
        while True:
            home = await self._home(key)
            async with self._copying[home]:
                idle = self._copiers[home]
                wire = idle.pop() if idle else None
                if wire is None or wire.closed:
                    wire = await self._connect(home)
                try:
                    answers = await asyncio.gather(wire.send(packed), wire.send(wait, longer=longer))
                finally:
                    if wire.idle:
                        idle.append(wire)
                    else:
                        # Who was cancelled has not waited for his answers.
                        wire.retire()
            error = answers[0]
            if not isinstance(error, ServerError) or not self._passes(wire, error, until):
                return answers
            await asyncio.sleep(_PAUSE)

    async def calls(self, commands: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Send commands, each to the server of its key, together; all answers, in order."""
        if not commands:
            return []
        return list(await asyncio.gather(*(self.call(key, *words) for key, words in commands)))

    async def call_at(self, home: str, *words: Any) -> Any:
        """Send one command to this very server (`Wire.home`), whatever belongs there now; its answer."""
        wire = await self.wire_to(home)
        return await wire.call(*words)

    async def _answer(self, key: str, packed: bytes) -> Any:
        wire = self._wires.get(self.topology.home(key))
        if wire is None or wire.closed:
            wire = await self.wire(key)
        answer = await wire.send(packed)
        if isinstance(answer, ServerError):
            return await self._after(wire, answer, key, packed)
        return answer

    # Answers that are no results

    async def _after(self, wire: Wire, error: ServerError, key: str, packed: bytes) -> Any:
        """Ask again where that may help: what was answered so was not done."""
        until = asyncio.get_running_loop().time() + _PATIENCE
        while self._passes(wire, error, until):
            if error.code == "ASK":
                wire = await self.wire_to(_address(wire, error))
                _, answer = await asyncio.gather(wire.send(_ASKING), wire.send(packed))
            else:
                if error.code != "MOVED":
                    await asyncio.sleep(_PAUSE)
                wire = await self.wire(key)
                answer = await wire.send(packed)
            if not isinstance(answer, ServerError):
                return answer
            error = answer
        if error.code in ("ERR", "WRONGTYPE", "NOGROUP", "BUSYGROUP", "NOSCRIPT"):
            raise error
        raise unavailable(self.who, error)

    def _passes(self, wire: Wire, error: ServerError, until: float) -> bool:
        self.redirected(wire, error)
        passing = error.code in _PASSING or (self.topology.replaces and reconnects(error))
        return passing and asyncio.get_running_loop().time() < until

    def redirected(self, wire: Wire, error: ServerError) -> None:
        """Take note that a server sends us on, or is no use any more.

        Raises `ConfigurationError` for a node of a cluster that was not known to be one.
        """
        if error.code == "MOVED" or (error.code == "ASK" and not self.topology.clustered):
            host, _, port = _address(wire, error).rpartition(":")
            self.topology.moved(int(str(error).split()[1]), host, int(port))
        elif reconnects(error):
            self.topology.look_again()
            # Others may await answers on it: they will be told the same.
            wire.retire()

    # Wires

    async def wire(self, key: str) -> Wire:
        """An open wire to the server of a key. Raises `BrokerUnavailable` or `ConfigurationError`."""
        wire = self._wires.get(self.topology.home(key))
        if wire is None or wire.closed:
            wire = await self.wire_to(await self._home(key))
        return wire

    async def wire_to(self, home: str) -> Wire:
        """An open wire to the server of this name. Raises as `wire`.

        Who asks for one that is known to be away hears so at once: only one attempt at a time waits for it.
        """
        wire = self._wires.get(home)
        while wire is None or wire.closed:
            opening = self._opening.get(home)
            if opening is None:
                opening = self._opening[home] = asyncio.get_running_loop().create_task(self._open(home))
                opening.add_done_callback(lambda _: self._opening.pop(home))
            # Whoever is cancelled while waiting does not take it away from the others.
            await asyncio.wait([opening], timeout=_GRACE if home in self._away else None)
            failed = opening.result() if opening.done() and not opening.cancelled() else self._away.get(home)
            if failed is not None:
                raise failed
            if self._closed:
                raise BrokerUnavailable(f"{self.who} is closed")
            wire = self._wires.get(home)
        return wire

    async def _open(self, home: str) -> Exception | None:
        try:
            wire = await self._connect(home)
        except (BrokerUnavailable, ConfigurationError) as error:
            self._away[home] = error
            return error
        self._away.pop(home, None)
        self._wires[home] = wire
        self._listen()
        return None

    async def new_wire(self, key: str, heard: Callable[[Any], None] | None = None) -> Wire:
        """A wire of the caller's own to the server of a key: for calls that block, and for listening."""
        return await self._connect(await self._home(key), heard)

    async def _home(self, key: str) -> str:
        if self._closed:
            raise BrokerUnavailable(f"{self.who} is closed")
        async with self._deadline():
            await self.topology.look(self._timeout)
        return self.topology.home(key)

    async def _connect(self, home: str, heard: Callable[[Any], None] | None = None) -> Wire:
        if self._closed:
            raise BrokerUnavailable(f"{self.who} is closed")
        async with self._deadline():
            connection = await self.topology.connect(home, self._timeout)
        wire = Wire(self._timeout, heard, home)
        wire.take_over(connection)
        self._given.add(wire)
        return wire

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            self.topology.look_again()
            raise unavailable(self.who, TimeoutError(f"no connection within {self._timeout:g} s")) from error
        except (RedisError, OSError, ValueError) as error:
            self.topology.look_again()
            raise unavailable(self.who, error) from error

    # New masters

    def _listen(self) -> None:
        """Hear of a new master before the old one is told: until then that takes what will be lost with it."""
        listener = self._listener
        if not self.topology.tells or self._closed or (listener is not None and not listener.closed):
            return
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._subscribe())

    async def _subscribe(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                connection, channel, concerns = await self.topology.listen(self._timeout)
        except (RedisError, OSError):
            self._listen_later()
        else:
            self._listener = Wire(self._timeout, lambda told: self._switch(told, concerns))
            self._listener.take_over(connection)
            self._listener.tell(pack(("SUBSCRIBE", channel)))
            self._listener.when_ended(self._listen_later)
        finally:
            self._listening = None

    def _listen_later(self) -> None:
        if not self._closed:
            asyncio.get_running_loop().call_later(_LISTEN_AGAIN, self._listen)

    def _switch(self, told: Any, concerns: Callable[[bytes], bool]) -> None:
        if isinstance(told, list) and told[0] == b"message" and concerns(told[2]):
            for wire in list(self._given):
                wire.abort(ConnectionLost("another server has become the master"))

    # Its end

    async def close(self) -> None:
        """Close all wires. May be repeated."""
        self._closed = True
        tasks = [*self._opening.values(), *([self._listening] if self._listening is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._wires, listener, self._listener = {}, self._listener, None
        self._copiers.clear()
        # Those too that were given to others: who was cancelled in the wrong moment has not closed his.
        wires = [*self._given, *([listener] if listener is not None else [])]
        if wires:
            await asyncio.gather(*(wire.close() for wire in wires))

    def abandon(self) -> None:
        """Let go of sockets whose event loop is gone. May be repeated, and called in any thread."""
        self._closed = True
        wires = [*self._given, *([self._listener] if self._listener is not None else [])]
        self._wires, self._listener = {}, None
        for wire in wires:
            wire.abandon()


def _address(wire: Wire, error: ServerError) -> str:
    """The name of the server that MOVED or ASK sends us to; without a host it is at the one that said so."""
    host, _, port = str(error).split()[2].rpartition(":")
    return f"{host or wire.home.rpartition(':')[0]}:{port}"
