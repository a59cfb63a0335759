"""Clients of the service's own library: where to, and with which credentials."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from camora.errors import ConfigurationError

from camora_servicebus.quiet import hush
from camora_servicebus.settings import Proxy
from camora_servicebus.store import Store
from camora_servicebus.tokens import Tokens

if TYPE_CHECKING:
    from azure.servicebus.aio import ServiceBusClient

__all__ = ["Connector"]


class Connector:
    """Makes the client of one event loop. Making one does no I/O.

    `home` is the loop in which the app's own credential is asked for tokens: it may be bound to it.
    """

    def __init__(self, store: Store, home: asyncio.AbstractEventLoop | None = None) -> None:
        self._store = store
        self._home = home
        self._client: ServiceBusClient | None = None
        self._own: Any = None
        """A credential that was made here, and is closed here."""
        self._tokens: Tokens | None = None

    @property
    def store(self) -> Store:
        """Where it connects to."""
        return self._store

    def name(self) -> str:
        """A new name for a connection, as operators see it."""
        return f"{self._store.settings.name}-{uuid4().hex[:8]}"

    def client(self) -> ServiceBusClient:
        """The client of the running loop. It tries everything once: what may be repeated is decided here.

        Raises `ConfigurationError` where a library is missing.
        """
        if self._client is None:
            self._client = self._made()
        return self._client

    def _made(self) -> ServiceBusClient:
        from azure.servicebus import TransportType
        from azure.servicebus.aio import ServiceBusClient

        hush()
        address, settings = self._store.address, self._store.settings
        more: dict[str, Any] = {}
        if address.emulator:
            more["use_tls"] = False
        elif settings.cafile:
            more["ssl_context"] = address.context(settings.cafile)
        if settings.endpoint:
            more["custom_endpoint_address"] = f"sb://{settings.endpoint}"
        if settings.proxy:
            more["http_proxy"] = _proxy(Proxy.of(settings.proxy, "proxy"))
        if settings.over_websockets:
            _needs("aiohttp", "websocket", f"{address.label}: AMQP over WebSockets")
        shown = f"[{address.host}]" if ":" in address.host else address.host
        return ServiceBusClient(
            f"{shown}:{address.port}" if address.emulator else shown,
            self._credential(),
            transport_type=TransportType.AmqpOverWebsocket if settings.over_websockets else TransportType.Amqp,
            retry_total=0,
            try_timeout=settings.timeout,
            user_agent=settings.name,
            **more,
        )

    def _credential(self) -> Any:
        from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

        address, given = self._store.address, self._store.settings.credential
        if address.key:
            return AzureNamedKeyCredential(address.key_name, address.key)
        if address.signature:
            return AzureSasCredential(address.signature)
        if isinstance(given, (AzureNamedKeyCredential, AzureSasCredential)):
            return given
        if given is not None and hasattr(given, "get_token"):
            self._tokens = Tokens(given, self._home)
        else:
            self._own = given() if given is not None else _default(address.label)
            self._tokens = Tokens(self._own)
        return self._tokens

    async def close(self) -> None:
        """Let go of what it made; senders and receivers are closed by who has them."""
        client, self._client, own, self._own = self._client, None, self._own, None
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            await tokens.close()
        if client is not None:
            await client.close()
        if own is not None and hasattr(own, "close"):
            with contextlib.suppress(Exception):
                done = own.close()
                if inspect.isawaitable(done):
                    await done


def _proxy(proxy: Proxy) -> dict[str, Any]:
    found: dict[str, Any] = {"proxy_hostname": f"http://{proxy.host}", "proxy_port": proxy.port}
    if proxy.user:
        found |= {"username": proxy.user, "password": proxy.password}
    return found


def _default(label: str) -> Any:
    what = f"{label}: there is neither a key nor a credential, so that DefaultAzureCredential is to be asked; this"
    _needs("azure.identity.aio", "identity", what)
    _needs("aiohttp", "identity", what)
    from azure.identity.aio import DefaultAzureCredential  # type: ignore[import-not-found,import-untyped,unused-ignore]

    return DefaultAzureCredential()


def _needs(module: str, extra: str, what: str) -> None:
    import importlib

    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{what} needs {module.partition('.aio')[0]}: pip install 'camora-servicebus[{extra}]'"
        ) from error
