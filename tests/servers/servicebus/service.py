"""The namespace on the wire: which link leads where, who may attach it, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import attrs

from tests.servers.servicebus.amqp.connection import Connection, Limits
from tests.servers.servicebus.amqp.link import FromClient, Link, ToClient
from tests.servers.servicebus.amqp.performatives import error
from tests.servers.servicebus.amqp.types import DecodeError, Described
from tests.servers.servicebus.entities import EntityError, Namespace
from tests.servers.servicebus.faults import Fault, Faults
from tests.servers.servicebus.management import NAMES, Management
from tests.servers.servicebus.message import Request
from tests.servers.servicebus.receiving import Receiving
from tests.servers.servicebus.requests import Answer, Names, Requests
from tests.servers.servicebus.security import Refused, Tokens, audience_path
from tests.servers.servicebus.sending import Sending
from tests.servers.servicebus.sessions import ReceivingSession, session_filter

if TYPE_CHECKING:
    from tests.servers.servicebus.events import Events

__all__ = ["Options", "Service", "path_of"]

_CBS_NAMES = Names("status-code", "status-description", "error-condition")
_MANAGEMENT = "/$management"


@attrs.frozen(kw_only=True)
class Options:
    """How the emulator behaves; times in seconds."""

    strict: bool = False
    """Whether links need a valid token."""
    locks_die_with_link: bool = False
    """Whether what a link has locked is free again when the link is gone; "Message transfers, locks, and settlement"
    says so of a broken connection, and clients count on the opposite."""
    idle_timeout: float = 240.0
    """After so long without a word from its client a connection ends."""
    link_idle: float = 600.0
    """After so long without a call a link is detached ("Service Bus AMQP errors": link is detached)."""
    connection_idle: float = 300.0
    """After so long without a link a connection is closed (the same page: connection is closed)."""
    max_frame: int = 65536
    tier: str = "standard"


class Service:
    """All that listens and answers on one namespace. It lives in one event loop."""

    def __init__(self, namespace: Namespace, events: Events, options: Options, keys: dict[str, str]) -> None:
        self.namespace = namespace
        self.events = events
        self.options = options
        self.limits = Limits(max_frame=options.max_frame, idle=options.idle_timeout)
        self.faults = Faults(time.time)
        self.tokens = Tokens(keys, time.time, options.strict)
        self.connections: set[Connection] = set()
        self.sessions: set[ReceivingSession] = set()
        """Links that hold a session."""
        self._loop = asyncio.get_running_loop()
        self._awake: dict[Receiving, None] = {}
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._tag = 0

    # --- of connections

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)
        connection.state["since"] = time.monotonic()
        if self.faults.take("outage", ""):
            connection.cut()
        elif self.faults.take("mute", ""):
            connection.mute()

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        for timer in connection.state.get("tokens", {}).values():
            timer[1].cancel()

    def logged_in(self, mechanism: str, response: bytes) -> bool:
        """SASL lets everybody in but who shows a wrong key: what one may do, tokens say ("protocol guide": CBS)."""
        if mechanism != "PLAIN" or not self.options.strict:
            return True
        _, _, login = response.partition(b"\0")
        name, _, key = login.partition(b"\0")
        return self.tokens.keys.get(name.decode(errors="replace")) == key.decode(errors="replace")

    def before_writing(self) -> None:
        self.events.flush()
        self._arm()

    def attached(self, link: Link) -> None:
        path = path_of(link)
        self.told("attaching", link=link.name, address=path, connection=link.connection.number)
        if path == "$cbs":
            self._requests(link, path, lambda: Requests(self._put_token, _CBS_NAMES)).join(link)
            return
        entity = path.removesuffix(_MANAGEMENT)
        if fault := self.faults.take("attach_refused", entity):
            link.refuse(error(fault.condition, fault.description))
            return
        if self.options.strict and not self._allowed(link.connection, entity):
            link.refuse(
                error("amqp:unauthorized-access", f"Unauthorized access. No valid token was put for '{entity}'.")
            )
            return
        try:
            self._attach(link, path, entity)
        except (EntityError, DecodeError) as failure:
            link.refuse(error(getattr(failure, "condition", "amqp:decode-error"), str(failure)))

    def _attach(self, link: Link, path: str, entity: str) -> None:
        if path.endswith(_MANAGEMENT):
            self._exists(entity)
            self._requests(link, path, lambda: Requests(Management(self, entity), NAMES)).join(link)
        elif isinstance(link, FromClient):
            target = self.namespace.target(entity)
            link.accept(Sending(self, entity), max_message_size=target.max_message_size)
        elif isinstance(link, ToClient):
            self._receive(link, entity)

    def _receive(self, link: ToClient, path: str) -> None:
        entity = self.namespace.entity(path)
        if why := self._unfit(path):
            link.refuse(error("com.microsoft:entity-disabled", why))
            return
        asked, wanted = session_filter(link.attach.source)
        if asked != entity.with_sessions:
            why = (
                "A sessionful message receiver cannot be created on an entity that does not require sessions."
                if asked
                else "A non-sessionful message receiver cannot be created on an entity that requires sessions."
            )
            link.refuse(error("amqp:not-allowed", f"{why} Entity: {entity.path}"))
        elif asked:
            ReceivingSession(self, entity, link, wanted).begin()
        else:
            link.accept(Receiving(self, entity, link))

    def _unfit(self, path: str) -> str:
        """Why nobody can receive from it, empty if one can."""
        options = self.namespace.entity(path).options
        return "" if options.can_receive() else f"{path}: is {options.status}; set its status to Active to receive."

    def _exists(self, path: str) -> None:
        try:
            self.namespace.entity(path)
        except EntityError:
            self.namespace.target(path)

    def _requests(self, link: Link, path: str, make: Any) -> Requests:
        nodes = link.connection.state.setdefault("requests", {})
        if path not in nodes:
            nodes[path] = make()
        return nodes[path]

    # --- tokens

    def _put_token(self, request: Request, link: FromClient) -> Answer | None:
        audience = str(request.application.get("name", ""))
        if fault := self.faults.take("cbs_refused", audience_path(audience)):
            return Answer(fault.status, fault.description)
        if str(request.application.get("operation")) != "put-token":
            return Answer(400, "the operation is no put-token")
        try:
            expires = self.tokens.check(str(request.application.get("type", "")), request.value, audience)
        except Refused as refused:
            return Answer(401, str(refused), condition=None)
        self._authorize(link.connection, audience_path(audience), expires)
        return Answer(202, "Accepted")

    def _authorize(self, connection: Connection, path: str, expires: float) -> None:
        tokens = connection.state.setdefault("tokens", {})
        if path in tokens:
            tokens.pop(path)[1].cancel()
        left = min(expires - time.time(), 10_000_000.0)
        timer = self._loop.call_later(max(left, 0), self._run_out, connection, path)
        tokens[path] = (expires, timer)

    def _run_out(self, connection: Connection, path: str) -> None:
        """A token's time is over: what it allowed ends ("protocol guide": claims-based security)."""
        connection.state["tokens"].pop(path, None)
        if not self.options.strict:
            return
        for link in connection.links:
            address = path_of(link)
            if address != "$cbs" and not self._allowed(connection, address.removesuffix(_MANAGEMENT)):
                link.detach(error("amqp:unauthorized-access", "ExpiredToken: The token has expired."))

    def _allowed(self, connection: Connection, path: str) -> bool:
        path = path.lower()
        now = time.time()
        return any(
            expires > now and (not scope or path == scope or path.startswith(scope + "/"))
            for scope, (expires, _) in connection.state.get("tokens", {}).items()
        )

    # --- time

    def later(self, receiving: Receiving) -> None:
        """Let a link look for messages, when what is going on now is done."""
        self._awake[receiving] = None
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._scheduled = False
        awake, self._awake = self._awake, {}
        for receiving in awake:
            if not receiving.link.ended:
                receiving.pump()
        self._arm()

    def _arm(self) -> None:
        due = self.namespace.next_due()
        if due is None or due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(due - time.time(), 0), self._tick)

    def _tick(self) -> None:
        self._due = float("inf")
        self._timer = None
        self.namespace.tick()
        self.look_at_sessions()
        self.events.flush()
        self._arm()

    def look_at_sessions(self) -> None:
        """End the links whose session's lock has lapsed."""
        for session in list(self.sessions):
            session.still()

    def sweep(self) -> None:
        """End what has been idle for too long. To be called now and then."""
        now = time.monotonic()
        for connection in list(self.connections):
            links = connection.links
            for link in links:
                self._still_there(link)
                idle = now - link.used
                if link.open and idle > self.options.link_idle and isinstance(link.node, (Receiving, Sending)):
                    link.detach(
                        error(
                            "amqp:link:detach-forced",
                            f"The link '{link.name}' is force detached. Code: idle for {idle:.0f} seconds.",
                        )
                    )
            if links:
                connection.state["since"] = now
            elif now - connection.state["since"] > self.options.connection_idle:
                connection.close(
                    "amqp:connection:forced",
                    "The connection was inactive for more than the allowed time and is closed by the container.",
                )

    def _still_there(self, link: Link) -> None:
        # Entities are deleted and disabled by other ways than the wire.
        if not isinstance(link.node, (Receiving, Sending)):
            return
        try:
            self._exists(link.node.path)
        except EntityError as failure:
            link.detach(error(failure.condition, str(failure)))
            return
        if isinstance(link.node, Receiving) and (why := self._unfit(link.node.path)):
            link.detach(error("com.microsoft:entity-disabled", why))

    # --- faults

    def lose(self, link: Link, fault: Fault) -> None:
        """Keep an answer back, and cut the connection unless only the answer shall be lost."""
        self.told("lost", fault=fault.kind, link=link.name, how=fault.how)
        self.events.flush()
        if fault.how == "cut":
            link.connection.cut()

    def told(self, event: str, **fields: Any) -> None:
        """Something happened on the wire."""
        self.events.tell({"event": event, **fields})

    def tag(self) -> bytes:
        """A delivery-tag for what is not locked."""
        self._tag += 1
        return uuid.UUID(int=self._tag).bytes_le


def path_of(link: Link) -> str:
    """The entity that a link is for: its address, be it a path or a URL."""
    terminus = link.attach.source if link.attach.role else link.attach.target
    address = terminus.value[0] if isinstance(terminus, Described) and terminus.value else None
    text = "" if address is None else str(address)
    if "://" in text:
        text = text.partition("://")[2].partition("/")[2]
    return unquote(text).strip("/")
