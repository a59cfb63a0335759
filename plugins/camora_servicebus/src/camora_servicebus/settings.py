"""What can be set, as keywords of a provider or in the query of a URL; and where the namespace is."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import attrs
from camora.errors import ConfigurationError, SettingsError
from camora.settings import Duration, Secret, Size, structure_settings
from camora.urls import Query, ServerUrl, host_and_port, text, truth
from camora.validators import more_than_no_time, seconds_or_none, whole

from camora_servicebus.bounds import as_bytes
from camora_servicebus.connection_string import Parts

__all__ = ["SCHEMES", "Address", "Proxy", "ServiceBusSettings", "address_of"]

SCHEMES = ("servicebus",)
_PORT = 5671
_EMULATOR = 5672
_HTTP = 5300
_SMALLEST = 16 * 1024


def _is_size(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingsError(f"{attribute.name} = {value!r}: expected bytes, or a text such as '256KiB'")
    if value < _SMALLEST:
        raise SettingsError(f"{attribute.name} = {value!r}: must be {_SMALLEST} or more")


def _is_prefix(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._/-]{0,49})?", value) or "//" in value:
        raise SettingsError(
            f"{attribute.name} = {value!r}: expected at most 50 ASCII letters, digits and ._-/, the first of them a "
            "letter or a digit"
        )


def _is_name(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not 0 < len(value) <= 64:
        raise SettingsError(f"{attribute.name} = {value!r}: expected 1 to 64 printable ASCII characters")


def _is_proxy(_: Any, attribute: Any, value: Any) -> None:
    if value is not None:
        Proxy.of(value, attribute.name)


def _is_connection_string(_: Any, attribute: Any, value: Any) -> None:
    if value is not None:
        Parts.of(value, attribute.name)


def _is_host(_: Any, attribute: Any, value: Any) -> None:
    if value is not None:
        try:
            found = re.fullmatch(r"\S+", value) and host_and_port(value, 443, attribute.name)
        except (ConfigurationError, TypeError, AttributeError):
            found = None
        if found is None:
            raise SettingsError(f"{attribute.name} = {value!r}: expected HOST or HOST:PORT")


def _is_credential(value: Any) -> bool:
    # A token credential, a function that makes one, or a key or a signature as azure.core has them.
    return callable(value) or any(hasattr(value, name) for name in ("get_token", "named_key", "signature"))


@attrs.frozen
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    user: str = ""
    password: str = attrs.field(default="", repr=False)

    @classmethod
    def of(cls, url: str, where: str) -> Proxy:
        """Of `http://user:password@host:port`. Raises `SettingsError`, which never shows it."""
        try:
            parts = ServerUrl.of(url, ("http",))
            [one] = parts.hosts
            host, port = host_and_port(one, 8080, where)
        except (ConfigurationError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"{where}: expected http://USER:PASSWORD@HOST:PORT, or one without a user") from error
        if not urlsplit(f"//{one}").hostname:
            raise SettingsError(f"{where}: names no host")
        return cls(host, port, parts.user, parts.password)

    @property
    def url(self) -> str:
        """It as a URL, with its secrets."""
        access = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        return f"http://{access}{self.host}:{self.port}"


@attrs.frozen(kw_only=True)
class ServiceBusSettings:
    """Settings of everything that is kept in Azure Service Bus; durations are seconds, or texts such as "10s".

    `connection_string` is that of a namespace or of one queue; then the URL is `servicebus://`. `credential` is an
    asynchronous credential, as azure-identity has them, any object with `async get_token(*scopes)`, or a function that
    makes one for each event loop; without one, and without a key, `DefaultAzureCredential` is asked. `prefix` begins
    the name of every queue's entity. `transport` is AMQP over TCP (port 5671), or over WebSockets (port 443); `proxy`
    is the URL of an HTTP proxy, which WebSockets go through.
    `timeout` is how long the service may take for an answer or a connection. `receivers` is how many connections a
    worker receives with from each queue; None: one. `lock_duration` and
    `max_delivery_count` are those of queues that say nothing else, when `camora servicebus apply` makes them.
    `create` makes missing queues when the broker is opened, which needs a key with Manage rights.
    `max_message_size` is what the namespace's tier takes, with all properties: 256 KiB in Standard, more in Premium.
    `claim_check` is where bodies are kept that are larger: the URL of a result backend, or one made by hand; a claim is
    sent then. `claim_ttl` is for how long: longer than a job may wait, or lie among the dead letters.
    `management` is host and port of the management interface, where it is not the namespace's own. `endpoint` is host
    and port that connections go to instead of the namespace's own (an application gateway, a private endpoint);
    `cafile` names a file of certificates to believe. `name` is the name that operators see.

    Raises `SettingsError` that names the field.
    """

    connection_string: Secret | None = attrs.field(default=None, repr=False, validator=_is_connection_string)
    credential: Any = attrs.field(default=None, repr=False)
    prefix: str = attrs.field(default="", validator=_is_prefix)
    transport: Literal["amqp", "websocket"] = "amqp"
    proxy: Secret | None = attrs.field(default=None, repr=False, validator=_is_proxy)
    timeout: Duration = attrs.field(default=10.0, converter=seconds_or_none, validator=more_than_no_time)
    receivers: int | None = attrs.field(default=None, validator=whole(1, 100))
    lock_duration: Duration = attrs.field(default=60.0, converter=seconds_or_none, validator=more_than_no_time)
    max_delivery_count: int = attrs.field(default=20, validator=whole(1, 2000))
    create: bool = False
    claim_check: Any = attrs.field(default=None, repr=False)
    claim_ttl: Duration = attrs.field(default=14 * 86400.0, converter=seconds_or_none, validator=more_than_no_time)
    max_message_size: Size = attrs.field(default=256 * 1024, converter=as_bytes, validator=_is_size)
    management: str | None = attrs.field(default=None, validator=_is_host)
    endpoint: str | None = attrs.field(default=None, validator=_is_host)
    cafile: str | None = None
    name: str = attrs.field(default="camora", validator=_is_name)

    def __attrs_post_init__(self) -> None:
        if not 5 <= self.lock_duration <= 300:
            raise SettingsError(f"lock_duration = {self.lock_duration:g}: the service takes 5 seconds to 5 minutes")
        if self.credential is not None and not _is_credential(self.credential):
            raise SettingsError(
                f"credential: {type(self.credential).__name__} has no get_token(); give a credential of "
                "azure.identity.aio, or an object of yours with  async def get_token(self, *scopes, **options)"
            )

    @property
    def over_websockets(self) -> bool:
        """Whether AMQP goes over WebSockets: because it was said, or because there is a proxy."""
        return self.transport == "websocket" or self.proxy is not None


_IN_A_URL = [
    field.name
    for field in attrs.fields(ServiceBusSettings)
    if field.name not in ("credential", "connection_string", "claim_check")
]
_OPTIONS: dict[str, Callable[[str], Any]] = {"emulator": truth, "entity": text}
"""Those of a URL alone."""


@attrs.frozen(kw_only=True)
class Address:
    """The namespace, and how to get in. `label` is it without secrets.

    `key_name` and `key` are a shared access key, `signature` is a token made of one, which nobody can renew. Where
    there is neither, a credential is asked for tokens. `entity` is the one queue that the key is for, if it is not for
    the whole namespace.
    """

    host: str
    port: int
    emulator: bool = False
    key_name: str = ""
    key: str = attrs.field(default="", repr=False)
    signature: str = attrs.field(default="", repr=False)
    entity: str = ""
    management: tuple[str, int]
    label: str

    @property
    def by_key(self) -> bool:
        """Whether the address itself says how to get in."""
        return bool(self.key or self.signature)

    def context(self, cafile: str) -> ssl.SSLContext:
        """What TLS needs to believe this file's certificates. Raises `ConfigurationError` if it cannot be read."""
        try:
            return ssl.create_default_context(cafile=cafile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{self.label}: cafile {cafile!r} cannot be read: {error}") from error


def address_of(url: str | None, settings: ServiceBusSettings | None = None) -> tuple[Address, ServiceBusSettings]:
    """Where the namespace is, and the settings with those of the URL's query on top.

    With a connection string, which says where it is, the URL is None, or `servicebus://` with a query at most. Raises
    `ConfigurationError` for a URL that cannot be, or for two answers to one question, and `SettingsError` for options
    that do not exist, stand there twice, or have no usable value. No secret is ever shown.
    """
    settings = settings or ServiceBusSettings()
    parts = ServerUrl.of(url or "servicebus://", SCHEMES)
    where = parts.where
    if settings.connection_string is None and not parts.rest:
        raise ConfigurationError(
            "Azure Service Bus: say where the namespace is, servicebus://NAME.servicebus.windows.net, or give its "
            "connection_string"
        )
    if settings.connection_string is not None and parts.rest:
        raise ConfigurationError(
            f"{where}: there is a connection_string too, with which the URL is  servicebus://  alone: leave one "
            "of them out"
        )
    query = Query.of(parts, _IN_A_URL, _OPTIONS, secret=["proxy"])
    problems = query.problems
    start: Mapping[str, Any] = {name: getattr(settings, name) for name in _IN_A_URL}
    try:
        made = structure_settings(ServiceBusSettings, {**start, **query.settings}, where=where)
    except SettingsError as error:
        problems += error.problems
    if problems:
        raise SettingsError("\n".join(problems), problems=problems)
    made = attrs.evolve(
        made,
        credential=settings.credential,
        connection_string=settings.connection_string,
        claim_check=settings.claim_check,
    )
    return (_of_string if made.connection_string else _of_url)(parts, made, query.options), made


def _of_url(parts: ServerUrl, settings: ServiceBusSettings, options: Mapping[str, Any]) -> Address:
    where, emulator = parts.where, options.get("emulator", False)
    if len(parts.hosts) != 1 or not parts.hosts[0]:
        raise ConfigurationError(f"{where}: name one namespace: servicebus://NAME.servicebus.windows.net")
    if parts.path.strip("/"):
        raise ConfigurationError(f"{where}: a namespace has no path; ?prefix=… keeps apps apart")
    host, port = host_and_port(parts.hosts[0], _EMULATOR if emulator else _PORT, where)
    _only_its_own(port, emulator, where)
    if bool(parts.user) != bool(parts.password):
        raise ConfigurationError(
            f"{where}: a shared access key has a name and a key: servicebus://KEYNAME:KEY@NAME.servicebus.windows.net "
            "(write / as %2F and + as %2B in the key)"
        )
    if parts.password and settings.credential is not None:
        raise ConfigurationError(f"{where}: there are a shared access key and a credential; leave one of them out")
    return Address(
        host=host,
        port=port,
        emulator=emulator,
        key_name=parts.user,
        key=parts.password,
        entity=options.get("entity", ""),
        management=_management(host, emulator, settings, where),
        label=where,
    )


def _of_string(url: ServerUrl, settings: ServiceBusSettings, options: Mapping[str, Any]) -> Address:
    parts = Parts.of(settings.connection_string or "", "connection_string")
    label = f"servicebus://{parts.host}"
    if settings.credential is not None:
        raise ConfigurationError(f"{label}: the connection_string has a key, and there is a credential; leave one out")
    emulator = parts.emulator or options.get("emulator", False)
    host, port = host_and_port(parts.host, _EMULATOR if emulator else _PORT, label)
    _only_its_own(port, emulator, label)
    return Address(
        host=host,
        port=port,
        emulator=emulator,
        key_name=parts.key_name,
        key=parts.key,
        signature=parts.signature,
        entity=parts.entity or options.get("entity", ""),
        management=_management(host, emulator, settings, label),
        label=label,
    )


def _only_its_own(port: int, emulator: bool, where: str) -> None:
    if not emulator and port != _PORT:
        raise ConfigurationError(
            f"{where}: the service listens at its own ports only; ?endpoint=HOST:PORT goes by way of a gateway, and "
            "?emulator=true to an emulator"
        )


def _management(host: str, emulator: bool, settings: ServiceBusSettings, where: str) -> tuple[str, int]:
    return host_and_port(settings.management or host, _HTTP if emulator else 443, where)
