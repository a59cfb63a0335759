"""What tests command, as JSON lines over a socket of its own: faults, entities, and questions about them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import attrs

from tests.servers.servicebus.amqp.performatives import error
from tests.servers.servicebus.entities import EntityError, QueueOptions, SubscriptionOptions, TopicOptions
from tests.servers.servicebus.faults import KINDS
from tests.servers.servicebus.service import path_of

if TYPE_CHECKING:
    from tests.servers.servicebus.amqp.connection import Connection
    from tests.servers.servicebus.doors import Doors
    from tests.servers.servicebus.service import Service

__all__ = ["Control"]


class Control:
    """One command in, one answer out: `{"ok": ...}` or `{"error": "..."}`."""

    def __init__(self, service: Service, doors: Doors) -> None:
        self._service = service
        self._doors = doors
        self._restoring: asyncio.TimerHandle | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one test's connection until it ends."""
        while line := await reader.readline():
            try:
                command = json.loads(line)
                done = getattr(self, f"do_{command.pop('do')}")(**command)
                if asyncio.iscoroutine(done):
                    done = await done
                answer: dict[str, Any] = {"ok": done}
            except (EntityError, ValueError, TypeError, AttributeError, KeyError) as failure:
                answer = {"error": f"{type(failure).__name__}: {failure}"}
            self._service.before_writing()
            writer.write(json.dumps(answer, default=str).encode() + b"\n")
            await writer.drain()
        writer.close()

    def do_ping(self) -> str:
        """Whether it is there; all events are in the file then."""
        return "pong"

    # --- entities

    def do_create(self, kind: str, name: str, topic: str = "", **options: Any) -> None:
        """Make a queue, a topic or a subscription."""
        namespace = self._service.namespace
        match kind:
            case "queue":
                namespace.create_queue(name, QueueOptions(**options))
            case "topic":
                namespace.create_topic(name, TopicOptions(**options))
            case "subscription":
                namespace.create_subscription(topic, name, SubscriptionOptions(**options))
            case _:
                raise ValueError(f"no kind of entity: {kind!r}")

    def do_update(self, kind: str, name: str, topic: str = "", **options: Any) -> None:
        """Change some options of one."""
        namespace = self._service.namespace
        match kind:
            case "queue":
                namespace.update_queue(name, attrs.evolve(namespace.target(name).options, **options))
            case "topic":
                namespace.update_topic(name, attrs.evolve(namespace.target(name).options, **options))
            case "subscription":
                known = namespace.subscription(topic, name).options
                namespace.update_subscription(topic, name, attrs.evolve(known, **options))
            case _:
                raise ValueError(f"no kind of entity: {kind!r}")

    def do_delete(self, kind: str, name: str, topic: str = "") -> None:
        """Delete one, with its messages; links to it are detached."""
        namespace = self._service.namespace
        if kind == "subscription":
            namespace.delete_subscription(topic, name)
        else:
            {"queue": namespace.delete_queue, "topic": namespace.delete_topic}[kind](name)
        path = f"{topic}/Subscriptions/{name}" if kind == "subscription" else name
        self.do_detach(path, "amqp:not-found", f"The messaging entity '{path}' could not be found.")

    def do_counts(self, path: str) -> dict[str, int]:
        """How many messages it has."""
        return attrs.asdict(self._service.namespace.entity(path).counts())

    def do_messages(self, path: str) -> list[dict[str, Any]]:
        """Its messages, oldest first, without their bodies."""
        return [
            {
                "sequence": one.sequence_number, "message_id": one.message_id, "state": one.state,
                "delivery_count": one.delivery_count, "locked": one.token is not None, "session": one.session_id,
                "reason": one.dead_letter_reason, "description": one.dead_letter_description,
            }
            for one in self._service.namespace.entity(path).peek(0, 1_000_000)
        ]  # fmt: skip

    # --- faults

    def do_fault(self, **fault: Any) -> Any:
        """Let something go wrong; see `faults.KINDS`. An outage and muteness begin at once.

        Of an entity, muteness is about the connections that are there now: a new one cannot be told from another.
        """
        kind = fault.get("kind")
        if kind == "outage":
            return self._outage(fault.get("seconds"))
        self._service.faults.arm(**fault)
        if kind == "mute":
            for connection in self._connected(fault.get("entity")):
                connection.mute()
            if fault.get("seconds") is not None:
                asyncio.get_running_loop().call_later(fault["seconds"] + 0.01, self.do_clear, "mute")
        return None

    def do_faults(self) -> list[dict[str, Any]]:
        """Those that are still to come."""
        return [attrs.asdict(fault) for fault in self._service.faults.left()]

    def do_clear(self, kind: str | None = None) -> Any:
        """Let nothing more go wrong, or nothing of this kind."""
        if kind is not None and kind not in KINDS:
            raise ValueError(f"no kind of fault: {kind!r}")
        self._service.faults.clear(kind)
        if kind in (None, "mute"):
            for connection in list(self._service.connections):
                connection.unmute()
        if kind in (None, "outage"):
            return self._restore()
        return None

    def do_cut(self, entity: str | None = None) -> int:
        """Reset connections, all or those with a link to an entity; how many."""
        connections = self._connected(entity)
        self._service.told("cut", entity=entity, connections=len(connections))
        for connection in connections:
            connection.cut()
        return len(connections)

    def do_detach(
        self,
        entity: str | None = None,
        condition: str = "amqp:link:detach-forced",
        description: str = "The link is force detached by the emulator.",
    ) -> int:
        """Detach links with an error, all or those to an entity; how many."""
        links = [
            link
            for connection in self._service.connections
            for link in connection.links
            if entity is None or _about(path_of(link), entity)
        ]
        self._service.told("detach", entity=entity, condition=condition, links=len(links))
        for link in links:
            link.detach(error(condition, description))
        return len(links)

    def do_expire_locks(self, entity: str | None = None) -> int:
        """Let the locks lapse, all or those in an entity; how many messages were locked."""
        namespace = self._service.namespace
        entities = [namespace.entity(entity)] if entity is not None else list(namespace.entities())
        count = sum(one.expire_locks() for one in entities)
        self._service.look_at_sessions()
        return count

    def do_connections(self) -> list[dict[str, Any]]:
        """Who is connected, and with which links."""
        return [
            {
                "number": connection.number,
                "name": connection.name,
                "links": [{"name": link.name, "path": path_of(link), "receives": link.attach.role,
                           "credit": getattr(link, "credit", None)} for link in connection.links],
            }
            for connection in self._service.connections
        ]  # fmt: skip

    def _connected(self, entity: str | None) -> list[Connection]:
        """All connections, or those with a link to an entity."""
        return [
            connection
            for connection in self._service.connections
            if entity is None or any(_about(path_of(link), entity) for link in connection.links)
        ]

    async def _outage(self, seconds: float | None) -> None:
        await self._doors.shut()
        self.do_cut()
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._restoring = loop.call_later(seconds, lambda: loop.create_task(self._restore()))

    async def _restore(self) -> None:
        if self._restoring is not None:
            self._restoring.cancel()
            self._restoring = None
        await self._doors.open()


def _about(path: str, entity: str) -> bool:
    path = path.lower().removesuffix("/$management")
    return path == entity.lower()
