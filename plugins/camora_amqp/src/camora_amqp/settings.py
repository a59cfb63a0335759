"""What can be set, as keywords of a provider or in the query of a URL; and where the servers are."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal
from urllib.parse import quote, unquote

import attrs
from camora.errors import ConfigurationError, SettingsError
from camora.settings import Duration, structure_settings
from camora.urls import Query, ServerUrl, host_and_port, text, truth
from camora.validators import more_than_no_time, seconds_or_none, whole

from camora_amqp.exchanges import Exchange

__all__ = ["SCHEMES", "Address", "AmqpSettings", "split_url"]

SCHEMES = ("amqp", "amqps")
_PORTS = {"amqp": 5672, "amqps": 5671}


def _is_prefix(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or len(value.encode()) > 50:
        raise SettingsError(f"{attribute.name} = {value!r}: expected a text of at most 50 bytes")
    if not re.fullmatch(r"[A-Za-z0-9\-_.:@,/+]*", value):
        raise SettingsError(f"{attribute.name} = {value!r}: ASCII letters, digits and -_.:@,/+ are allowed in it")
    if value.startswith("amq."):
        raise SettingsError(f"{attribute.name} = {value!r}: names that begin with 'amq.' belong to the server")


def _exchanges(given: Iterable[Any]) -> tuple[Exchange, ...]:
    found = tuple(given)
    if wrong := [one for one in found if not isinstance(one, Exchange)]:
        raise SettingsError(f"exchanges: expected objects of class Exchange, found {wrong[0]!r}")
    return found


@attrs.frozen(kw_only=True)
class AmqpSettings:
    """Settings of everything that is kept in RabbitMQ; durations are seconds, or texts such as "10s".

    `prefix` begins the name of every queue and exchange of Camora's. `queue_type` is that of queues that say nothing
    else. `max_priority` gives classic queues this many priorities above 0, at most 9. `delivery_limit` is how often a
    quorum queue hands a message out before it goes to the dead letters by itself. `prefetch` is how many unacknowledged
    messages of one queue a worker may hold at most; None: as many as it asks for. `heartbeat` is the interval of
    heartbeats; None: half a lease for a worker. `timeout` is how long the server may take for an answer, a confirmation
    or a connection. `delay` says what keeps messages until they are due: queues whose messages expire ("ladder"), or
    the server's plugin for delayed messages ("plugin"). `ack_timeout` is the server's `consumer_timeout`: messages that
    are held for longer than half of it are exchanged for copies, so that it never comes to that. `result_ttl` is how
    long a result waits in a reply queue. `name` is the connections' name that operators see. `exchanges` are those that
    tasks and bindings name and that are to be declared; others must exist.

    Raises `SettingsError` that names the field.
    """

    prefix: str = attrs.field(default="", validator=_is_prefix)
    queue_type: Literal["quorum", "classic"] = "quorum"
    max_priority: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1, 9)))
    delivery_limit: int = attrs.field(default=20, validator=whole(1, 1_000_000))
    prefetch: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1, 65_535)))
    heartbeat: Duration | None = attrs.field(default=None, converter=seconds_or_none, validator=more_than_no_time)
    timeout: Duration = attrs.field(default=10.0, converter=seconds_or_none, validator=more_than_no_time)
    delay: Literal["ladder", "plugin"] = "ladder"
    ack_timeout: Duration = attrs.field(default=1800.0, converter=seconds_or_none, validator=more_than_no_time)
    result_ttl: Duration = attrs.field(default=86400.0, converter=seconds_or_none, validator=more_than_no_time)
    name: str = "camora"
    exchanges: tuple[Exchange, ...] = attrs.field(default=(), converter=_exchanges)

    def heartbeat_of(self, lease: float) -> float:
        """Seconds between heartbeats of a worker whose leases last so many."""
        return self.heartbeat or max(1.0, min(60.0, lease / 2))

    def __attrs_post_init__(self) -> None:
        if self.max_priority is not None and self.queue_type == "quorum":
            raise SettingsError(
                f"max_priority = {self.max_priority}: quorum queues have no priorities; add queue_type = 'classic', or "
                "declare a classic queue for urgent jobs: Queue('urgent', queue_type='classic', max_priority=9)"
            )
        names = [one.name for one in self.exchanges]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SettingsError(f"exchanges: {twice!r} stands there twice")


@attrs.frozen(kw_only=True)
class Address:
    """A URL taken apart: the nodes of one server or cluster, and how to get in. `label` is it without secrets."""

    hosts: tuple[tuple[str, int], ...]
    user: str = "guest"
    password: str = attrs.field(default="guest", repr=False)
    vhost: str = "/"
    tls: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    """Options of TLS, or None where the connection is plain."""
    label: str = ""
    named: bool = True
    """Whether the URL says who we are."""

    def context(self) -> ssl.SSLContext | None:
        """What TLS needs; None for a plain connection. Raises `ConfigurationError` for files that cannot be read."""
        if self.tls is None:
            return None
        try:
            made = ssl.create_default_context(cafile=self.tls.get("cafile"))
            if certificate := self.tls.get("certfile"):
                made.load_cert_chain(certificate, self.tls.get("keyfile"), self.tls.get("key_password"))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{self.label}: the certificates for TLS cannot be read: {error}") from error
        if not self.tls.get("verify", True):
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        return made

    def url(self, host: tuple[str, int], **query: Any) -> str:
        """The URL of one node, with its secrets, as aio-pika takes it."""
        name, port = host
        name = f"[{name}]" if ":" in name else name
        access = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        scheme = "amqp" if self.tls is None else "amqps"
        options = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in query.items())
        return f"{scheme}://{access}@{name}:{port}/{quote(self.vhost, safe='')}?{options}"


def split_url(url: str, settings: AmqpSettings | None = None) -> tuple[Address, AmqpSettings]:
    """Where the servers are, and the settings with those of the URL's query on top.

    Raises `ConfigurationError` for a URL that cannot be, and `SettingsError` for options that do not exist, stand
    there twice, or have no usable value. No password is ever shown.
    """
    parts = ServerUrl.of(url, SCHEMES)
    where = parts.where
    query = Query.of(parts, _IN_A_URL, _TLS, secret=["key_password"])
    start = {name: getattr(settings, name) for name in _IN_A_URL} if settings is not None else {}
    problems = query.problems
    try:
        made = structure_settings(AmqpSettings, {**start, **query.settings}, where=where)
        if settings is not None:
            made = attrs.evolve(made, exchanges=settings.exchanges)
    except SettingsError as error:
        problems += error.problems
    if parts.scheme == "amqp" and query.options:
        problems.append(f"{where}: {next(iter(query.options))} is for TLS: write amqps for amqp in the URL")
    if problems:
        raise SettingsError("\n".join(problems), problems=problems)
    address = Address(
        hosts=tuple(host_and_port(one, _PORTS[parts.scheme], where) for one in parts.hosts),
        user=parts.user or "guest",
        password=parts.password if parts.named else "guest",
        vhost=unquote(parts.path) or "/",
        tls=query.options if parts.scheme == "amqps" else None,
        label=where,
        named=parts.named,
    )
    return address, made


_TLS: dict[str, Callable[[str], Any]] = {
    "cafile": text,
    "certfile": text,
    "keyfile": text,
    "key_password": text,
    "verify": truth,
}
"""Options of TLS, beside `AmqpSettings`."""

_IN_A_URL = [field.name for field in attrs.fields(AmqpSettings) if field.name != "exchanges"]
