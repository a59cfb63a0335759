"""The management interface of a namespace: what entities are there, and how they are made and changed.

The client library's own management client needs another HTTP library where it is asynchronous. The one that is not is
used here, in a thread of its own: it is no client for several threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import attrs
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.servicebus.management import ServiceBusAdministrationClient
from camora.errors import BrokerUnavailable, ConfigurationError

from camora_servicebus.admin_errors import Refused, in_words
from camora_servicebus.properties import KINDS, read, written
from camora_servicebus.quiet import hush
from camora_servicebus.rules import filter_of, set_filter
from camora_servicebus.settings import Proxy
from camora_servicebus.store import Store

__all__ = ["Admin", "Counts", "Tier"]

T = TypeVar("T")

_HTTPS = 443
_TRIES = 3
_PATIENCE = 3.0
"""How many timeouts a call may take with its repetitions."""


@attrs.frozen(kw_only=True)
class Tier:
    """What a namespace is: its tier (`basic`, `standard`, `premium`, `unknown`), and its messaging units."""

    name: str
    tier: str
    units: int = 0


@attrs.frozen(kw_only=True)
class Counts:
    """How many messages an entity holds, by their states."""

    active: int
    scheduled: int
    dead: int
    transferring: int = 0
    bytes: int = 0


class Admin:
    """Asks and changes one namespace. Belongs to one event loop; `close` it, or use it in `async with`.

    All methods do I/O, and raise `BrokerUnavailable` where nobody answers, `NotAllowed` for credentials that may not,
    and `Refused` for what the service does not want; both are kinds of `ConfigurationError`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._label = store.label
        self._own: Any = None
        """A credential that was made here, and is closed here."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="camora-servicebus-admin")
        self._client: ServiceBusAdministrationClient | None = None

    def __repr__(self) -> str:
        return f"Admin({self._label!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections; waits for a call that is on its way."""
        if self._client is not None:
            client, self._client = self._client, None
            await asyncio.get_running_loop().run_in_executor(self._thread, _closed, client, self._own)
        self._thread.shutdown(wait=False)

    # Questions

    async def namespace(self) -> Tier:
        """The namespace itself."""
        try:
            found = await self._call("look at the namespace", lambda client: client.get_namespace_properties())
        except ResourceNotFoundError:
            return Tier(name=self._store.address.host, tier="unknown")  # some emulators do not say
        # The tier is an enum or a text, by what the client knows.
        tier = getattr(found.messaging_sku, "value", found.messaging_sku) or "unknown"
        return Tier(name=str(found.name), tier=str(tier).lower(), units=int(found.messaging_units or 0))

    async def find(self, kind: str, path: tuple[str, ...]) -> dict[str, Any] | None:
        """The properties of an entity by Camora's names; None where there is none of this name."""
        entity = "/".join(path)

        def look(client: ServiceBusAdministrationClient) -> dict[str, Any] | None:
            found = _get(client, kind, path)
            if found is None:
                return None
            made = read(KINDS[kind], found)
            if kind == "subscription":
                made["filter"] = filter_of(client, *path)
            return made

        try:
            found = await self._call(f"look at {kind} {entity!r}", look)
        except ResourceNotFoundError:
            return None
        if found is None:
            raise Refused(f"{self._label}: {entity!r} is there, but it is no {kind}: take another name")
        return found

    async def counts(self, kind: str, path: tuple[str, ...]) -> Counts | None:
        """How much an entity holds; None where there is none of this name."""

        def ask(client: ServiceBusAdministrationClient) -> Any:
            ask: Callable[..., Any] = getattr(client, f"get_{kind}_runtime_properties")
            return ask(*path)

        try:
            found = await self._call(f"count what is in {kind} {'/'.join(path)!r}", ask)
        except ResourceNotFoundError:
            return None
        return Counts(
            active=int(getattr(found, "active_message_count", 0) or 0),
            scheduled=int(getattr(found, "scheduled_message_count", 0) or 0),
            dead=int(getattr(found, "dead_letter_message_count", 0) or 0),
            transferring=int(getattr(found, "transfer_message_count", 0) or 0),
            bytes=int(getattr(found, "size_in_bytes", 0) or 0),
        )

    # Changes

    async def create(self, kind: str, path: tuple[str, ...], values: Mapping[str, Any]) -> None:
        """Make an entity with these properties. Raises `Conflict` where it exists by now."""
        given = written(KINDS[kind], values, new=True)

        def make(client: ServiceBusAdministrationClient) -> None:
            create: Callable[..., Any] = getattr(client, f"create_{kind}")
            create(*path, **given)
            _filter(client, path, values)

        await self._call(f"make {kind} {'/'.join(path)!r}", make)

    async def change(self, kind: str, path: tuple[str, ...], values: Mapping[str, Any]) -> None:
        """Change these properties of an entity; all others are sent back as they are at this moment.

        Raises `Conflict` where somebody else changes it, and `Refused` where it is gone.
        """
        given = written(KINDS[kind], values, new=False)

        def update(client: ServiceBusAdministrationClient) -> None:
            _filter(client, path, values)
            if not given:
                return
            found = _get(client, kind, path)
            for attribute, value in given.items():
                setattr(found, attribute, value)
            change: Callable[..., Any] = getattr(client, f"update_{kind}")
            change(*path[:-1], found)

        try:
            await self._call(f"change {kind} {'/'.join(path)!r}", update)
        except ResourceNotFoundError:
            raise Refused(f"{self._label}: {kind} {'/'.join(path)!r} was deleted meanwhile") from None

    # The client

    def _access(self, loop: asyncio.AbstractEventLoop) -> str | _Blocking:
        """A key or a signature, as connection strings have them; or what gives tokens."""
        address, given = self._store.address, self._store.settings.credential
        if address.key:
            return f"SharedAccessKeyName={address.key_name};SharedAccessKey={address.key}"
        if address.signature:
            return f"SharedAccessSignature={address.signature}"
        if given is None:
            given = self._own = _default(self._label)
        return _Blocking(given, loop, self._store.settings.timeout)

    async def _call(self, doing: str, work: Callable[[ServiceBusAdministrationClient], T]) -> T:
        """Raises `ResourceNotFoundError` for what is not there."""
        loop = asyncio.get_running_loop()
        if self._client is None:
            self._client = _client(self._store, self._access(loop))
        try:
            return await loop.run_in_executor(self._thread, work, self._client)
        except ResourceNotFoundError:
            raise
        except AzureError as error:
            host, port = self._store.address.management
            raise in_words(error, self._label, doing, f"{host}:{port}") from error
        except _NoToken as error:
            raise BrokerUnavailable(
                f"{self._label}: cannot {doing}: the credential gave no token{error}"
            ) from error.__cause__


def _closed(client: ServiceBusAdministrationClient, credential: Any) -> None:
    with contextlib.suppress(AzureError):
        client.__exit__(None, None, None)
        if credential is not None:
            credential.close()


def _filter(client: ServiceBusAdministrationClient, path: tuple[str, ...], values: Mapping[str, Any]) -> None:
    if (text := values.get("filter")) is not None:
        topic, subscription = path
        set_filter(client, topic, subscription, text)


def _get(client: ServiceBusAdministrationClient, kind: str, path: tuple[str, ...]) -> Any:
    """The client's own properties; None for an entity of another kind."""
    get: Callable[..., Any] = getattr(client, f"get_{kind}")
    try:
        return get(*path)
    except AttributeError:
        return None  # the answer describes something else, and the client takes that for nothing


def _default(label: str) -> Any:
    """Not the asynchronous one: this waits in a thread, and needs no other HTTP library."""
    try:
        from azure.identity import DefaultAzureCredential  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ConfigurationError(
            f"{label}: there is neither a key nor a credential, so that DefaultAzureCredential is to be asked; this "
            "needs azure.identity: pip install 'camora-servicebus[identity]'"
        ) from error
    return DefaultAzureCredential()


def _client(store: Store, access: str | _Blocking) -> ServiceBusAdministrationClient:
    hush()
    address, settings = store.address, store.settings
    if settings.cafile is not None:
        address.context(settings.cafile)  # says in words what cannot be read
    name, port = address.management
    host = name if port == _HTTPS else f"{name}:{port}"
    options: dict[str, Any] = {
        "transport": _Transport(plain=address.emulator, timeout=settings.timeout, cafile=settings.cafile),
        "retry_total": _TRIES,
        "retry_read": 1,
        "retry_connect": 1,
        "timeout": settings.timeout * _PATIENCE,
    }
    if settings.proxy is not None:
        proxy = Proxy.of(settings.proxy, "proxy").url
        options["proxies"] = {"http": proxy, "https": proxy}
    if not isinstance(access, str):
        return ServiceBusAdministrationClient(host, access, **options)
    try:
        return ServiceBusAdministrationClient.from_connection_string(f"Endpoint=sb://{host};{access}", **options)
    except ValueError:
        # What the client says of it may hold the key.
        raise ConfigurationError(f"{store.label}: its key cannot be used: give a name and a key") from None


class _Transport(RequestsTransport):  # type: ignore[misc]  # made when it is first asked for
    """Says http where the client can say only https, and signs as the interface wants it."""

    def __init__(self, *, plain: bool, timeout: float, cafile: str | None) -> None:
        trusted = {} if cafile is None else {"connection_verify": cafile}
        super().__init__(connection_timeout=timeout, read_timeout=timeout, **trusted)
        self._plain = plain

    def send(self, request: Any, **given: Any) -> Any:
        if self._plain and request.url.startswith("https:"):
            request.url = f"http:{request.url.removeprefix('https:')}"
        # A signature from a connection string is taken for a token by the client, and no signature to the service.
        said = request.headers.get("Authorization", "")
        if said.startswith("Bearer SharedAccessSignature "):
            request.headers["Authorization"] = said.removeprefix("Bearer ")
        return super().send(request, **given)


class _NoToken(Exception):
    """Of a credential; no error of the client's, which would ask again and again."""


class _Blocking:
    """A token credential of an event loop for the thread that waits for it."""

    def __init__(self, credential: Any, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._credential = credential
        self._loop = loop
        self._patience = timeout * _PATIENCE

    def get_token(self, *scopes: str, **given: Any) -> Any:
        try:
            if not inspect.iscoroutinefunction(self._credential.get_token):
                return self._credential.get_token(*scopes, **given)
            return self._waited(self._credential.get_token(*scopes, **given))
        except (AzureError, _NoToken):
            raise
        except Exception as error:
            raise _NoToken(f": {error}") from error

    def _waited(self, asking: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(asking, self._loop)
        try:
            return future.result(self._patience)
        except TimeoutError:
            future.cancel()
            raise _NoToken(f" within {self._patience:g} s") from None
