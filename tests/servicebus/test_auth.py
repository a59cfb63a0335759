"""Getting in: keys, signatures, connection strings and credentials of all kinds; by TLS, WebSockets and proxies."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import ClientAuthenticationError
from camora.errors import BrokerUnavailable, ConfigurationError
from camora_servicebus import ServiceBusBroker, ServiceBusSettings
from camora_servicebus.tokens import Tokens

from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.security import sign, unsigned_jwt
from tests.servicebus.sending import LIMIT, broker_of, ended, envelope, new_name, opened, stored, until

SCOPE = "https://servicebus.azure.net"


@pytest.fixture(scope="module")
def plain() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(strict=True) as server:
        yield server


@pytest.fixture(scope="module")
def secure() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(tls=True, strict=True) as server:
        yield server


@pytest.fixture
def queue(plain: ServiceBusServer) -> str:
    return plain.create_queue(new_name())


def url_of(server: ServiceBusServer, access: str = "", **query: Any) -> str:
    options = "".join(f"&{name}={quote(str(value), safe='')}" for name, value in query.items())
    return f"servicebus://{access}{server.host}:{server.port}?emulator=true&timeout=5s{options}"


class Credential:
    """As a credential of azure-identity; it notes in which thread it was asked, and whether it was closed."""

    def __init__(self, seconds: float = 3600.0, audience: str = SCOPE) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.closed = False
        self._seconds = seconds
        self._audience = audience

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.asked.append(scopes)
        self.loops.add(asyncio.get_running_loop())
        expires = int(time.time() + self._seconds)
        return AccessToken(unsigned_jwt(expires, self._audience), expires)

    async def close(self) -> None:
        self.closed = True


async def gets_in(broker: ServiceBusBroker, server: ServiceBusServer, queue: str) -> None:
    await broker.open()
    try:
        await broker.publish([envelope(queue, 1)])
    finally:
        await broker.close()
    assert stored(server, queue) == ["job-1"]


async def stays_out(broker: ServiceBusBroker, *secrets: str) -> str:
    """Why; without these."""
    with pytest.raises(ConfigurationError) as caught:
        await broker.open()
    await broker.close()
    text = str(caught.value)
    assert not any(secret in text for secret in secrets)
    return text


# Keys


async def test_a_key_in_the_url(plain: ServiceBusServer, queue: str) -> None:
    access = f"{plain.key_name}:{quote(plain.key, safe='')}@"
    await gets_in(ServiceBusBroker(url_of(plain, access)), plain, queue)


@pytest.mark.parametrize("entity", [False, True], ids=["namespace", "entity"])
async def test_a_connection_string(plain: ServiceBusServer, queue: str, entity: bool) -> None:
    text = plain.connection_string_of(entity=queue if entity else "")
    settings = ServiceBusSettings(connection_string=text)
    await gets_in(ServiceBusBroker(None, settings), plain, queue)


async def test_a_signature_in_a_connection_string(plain: ServiceBusServer, queue: str) -> None:
    def broker(expires: float, path: str = "") -> ServiceBusBroker:
        uri = f"sb://{plain.host}:{plain.port}/{path}"
        token = sign(plain.key_name, plain.key, uri, time.time() + expires)
        text = f"Endpoint=sb://{plain.host}:{plain.port};SharedAccessSignature={token};UseDevelopmentEmulator=true"
        return ServiceBusBroker(None, ServiceBusSettings(connection_string=f"{text};EntityPath={queue}"))

    await gets_in(broker(3600), plain, queue)
    assert stored(plain, queue) == ["job-1"]
    text = await stays_out(broker(-10), "sig=")
    assert "the credentials are not accepted" in text
    await stays_out(broker(3600, "another"), "sig=")


async def test_a_wrong_key_is_named_and_not_shown(plain: ServiceBusServer) -> None:
    wrong = "d3f1n1tely-wr0ng"
    text = await stays_out(ServiceBusBroker(url_of(plain, f"{plain.key_name}:{wrong}@")), wrong)
    assert f"servicebus://{plain.host}:{plain.port}" in text
    assert "shared access policy" in text and "Send and Listen" in text
    text = await stays_out(ServiceBusBroker(url_of(plain, f"nobody:{plain.key}@")), plain.key)
    assert "shared access policy" in text


async def test_keys_as_azure_core_has_them(plain: ServiceBusServer, queue: str) -> None:
    named = AzureNamedKeyCredential(plain.key_name, plain.key)
    await gets_in(ServiceBusBroker(url_of(plain), ServiceBusSettings(credential=named)), plain, queue)
    other = plain.create_queue(new_name())
    token = sign(plain.key_name, plain.key, f"sb://{plain.host}:{plain.port}/", time.time() + 3600)
    signature = AzureSasCredential(token)
    await gets_in(ServiceBusBroker(url_of(plain), ServiceBusSettings(credential=signature)), plain, other)


async def test_a_key_that_is_taken_away_is_an_outage(plain: ServiceBusServer, queue: str) -> None:
    """Workers and dispatchers go on when it is given back."""
    async with opened(plain) as broker:
        await broker.publish([envelope(queue, 1)])
        plain.fault("cbs_refused", status=401)
        try:
            await asyncio.to_thread(plain.cut, queue)
            await ended(broker)
            with pytest.raises(BrokerUnavailable) as caught:
                await broker.publish([envelope(queue, 2)])
            assert "the credentials are not accepted" in str(caught.value)
            assert plain.key not in str(caught.value)
        finally:
            plain.clear("cbs_refused")
        await broker.publish([envelope(queue, 3)])
    assert stored(plain, queue) == ["job-1", "job-3"]


# Credentials


async def test_a_credential(plain: ServiceBusServer, queue: str) -> None:
    credential = Credential()
    await gets_in(ServiceBusBroker(url_of(plain), ServiceBusSettings(credential=credential)), plain, queue)
    assert credential.asked == [(f"{SCOPE}//.default",)] or credential.asked == [(f"{SCOPE}/.default",)]
    assert not credential.closed  # it is the app's


async def test_a_credential_for_something_else_says_which_roles_are_needed(plain: ServiceBusServer) -> None:
    credential = Credential(audience="https://storage.example")
    text = await stays_out(ServiceBusBroker(url_of(plain), ServiceBusSettings(credential=credential)), "eyJ")
    assert "Azure Service Bus Data Sender" in text


async def test_a_function_makes_a_credential_for_each_loop(plain: ServiceBusServer, queue: str) -> None:
    made: list[Credential] = []

    def new() -> Credential:
        made.append(Credential())
        return made[-1]

    broker = ServiceBusBroker(url_of(plain), ServiceBusSettings(credential=new))
    assert made == []
    await gets_in(broker, plain, queue)
    assert len(made) == 1 and made[0].closed


async def test_a_credential_that_fails_is_told(plain: ServiceBusServer) -> None:
    class Broken:
        async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
            raise ClientAuthenticationError("nobody is logged in: run az login")

    text = await stays_out(ServiceBusBroker(url_of(plain), ServiceBusSettings(credential=Broken())))
    assert "run az login" in text


async def test_a_credential_that_hangs_does_not_hang_us(plain: ServiceBusServer) -> None:
    class Hanging:
        async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
            await asyncio.Event().wait()
            raise AssertionError

    broker = ServiceBusBroker(
        url_of(plain, timeout="1s").replace("&timeout=5s", ""), ServiceBusSettings(credential=Hanging())
    )
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(broker.open(), LIMIT)
    await broker.close()


async def test_new_tokens_are_asked_for_in_time(plain: ServiceBusServer, queue: str) -> None:
    """The service ends links whose token has run out; whoever tries again, as dispatching does, hears nothing of it."""
    credential = Credential(seconds=3)
    broker = ServiceBusBroker(url_of(plain), ServiceBusSettings(credential=credential))
    await broker.open()
    sent = 0
    deadline = time.monotonic() + LIMIT
    try:
        while len(credential.asked) < 5:
            assert time.monotonic() < deadline
            with contextlib.suppress(BrokerUnavailable):  # a busy machine may need three seconds to say who it is
                await broker.publish([envelope(queue, sent + 1)])
                sent += 1
            await asyncio.sleep(0.3)
    finally:
        await broker.close()
    assert stored(plain, queue) == [f"job-{number}" for number in range(1, sent + 1)]


async def test_an_idle_connection_keeps_its_token_fresh(
    plain: ServiceBusServer, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camora_servicebus.publishing._PULSE", 0.1)
    credential = Credential(seconds=10)  # it is renewed in the last tenth of its time
    broker = ServiceBusBroker(url_of(plain), ServiceBusSettings(credential=credential))
    await broker.open()
    try:
        await broker.publish([envelope(queue, 1)])
        asked = len(credential.asked)
        await until(lambda: len(credential.asked) > asked, "a new token is asked for")
        await broker.publish([envelope(queue, 2)])
    finally:
        await broker.close()
    assert stored(plain, queue) == ["job-1", "job-2"]


async def test_one_token_serves_all_connections() -> None:
    credential = Credential()
    tokens = Tokens(credential)
    found = await asyncio.gather(*(tokens.get_token("a") for _ in range(10)), tokens.get_token("b"))
    assert len({token.token for token in found}) == 1
    assert credential.asked == [("a",), ("b",)]


async def test_the_app_s_credential_is_asked_in_its_own_loop() -> None:
    """It may keep a session that belongs to that loop; a worker connects in another."""
    credential = Credential()
    tokens = Tokens(credential, asyncio.get_running_loop())

    def elsewhere() -> AccessToken:
        return asyncio.run(tokens.get_token("a"))

    await asyncio.to_thread(elsewhere)
    assert credential.loops == {asyncio.get_running_loop()}


# azure-identity


class Metadata(BaseHTTPRequestHandler):
    """The managed identity of a machine in Azure, as App Service offers it."""

    server: Any

    def do_GET(self) -> None:
        resource = parse_qs(urlsplit(self.path).query).get("resource", [""])[0]
        if self.headers.get("X-IDENTITY-HEADER") != "h3ader":
            self.send_response(401)
            self.end_headers()
            return
        self.server.asked.append(resource)
        expires = int(time.time()) + 3600
        found = {"access_token": unsigned_jwt(expires), "expires_on": str(expires), "token_type": "Bearer"}
        answer = json.dumps({**found, "resource": resource}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the identity of this machine was asked for."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, name="identity")
    thread.start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "h3ader")
    yield server.asked
    server.shutdown()
    server.server_close()
    thread.join()


async def test_without_a_key_the_default_credential_is_asked(
    plain: ServiceBusServer, queue: str, identity: list[str]
) -> None:
    await gets_in(ServiceBusBroker(url_of(plain)), plain, queue)
    assert identity and all(asked.startswith(SCOPE) for asked in identity)


async def test_without_azure_identity_it_is_said_what_to_install(
    plain: ServiceBusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    text = await stays_out(ServiceBusBroker(url_of(plain)))
    assert "pip install 'camora-servicebus[identity]'" in text
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    access = f"{plain.key_name}:{plain.key}@"
    text = await stays_out(ServiceBusBroker(url_of(plain, access, transport="websocket")), plain.key)
    assert "pip install 'camora-servicebus[websocket]'" in text


# TLS, WebSockets, proxies


def far(server: ServiceBusServer, access: str = "", **query: Any) -> str:
    """A namespace of another name, which is behind a gateway."""
    assert server.certificates is not None
    given = {
        "endpoint": f"{server.host}:{server.port}",
        "cafile": server.certificates.authority,
        "timeout": "5s",
        **query,
    }
    options = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in given.items())
    return f"servicebus://{access}shop.servicebus.windows.net?{options}"


@pytest.mark.parametrize("transport", ["amqp", "websocket"])
@pytest.mark.parametrize("by", ["key", "credential"])
async def test_tls(secure: ServiceBusServer, transport: str, by: str) -> None:
    queue = secure.create_queue(new_name())
    access = f"{secure.key_name}:{secure.key}@" if by == "key" else ""
    settings = ServiceBusSettings(credential=None if by == "key" else Credential())
    await gets_in(ServiceBusBroker(far(secure, access, transport=transport), settings), secure, queue)


async def test_a_server_with_a_certificate_of_its_own_is_not_believed(secure: ServiceBusServer) -> None:
    url = far(secure, f"{secure.key_name}:{secure.key}@").partition("&cafile")[0] + "&timeout=5s"
    broker = ServiceBusBroker(url)
    with pytest.raises(BrokerUnavailable, match="(?i)certificate") as caught:
        await broker.open()
    assert secure.key not in str(caught.value)
    await broker.close()


async def test_a_file_of_certificates_that_is_none_is_named(secure: ServiceBusServer) -> None:
    assert "no-such-file" in await stays_out(ServiceBusBroker(far(secure, "a:b@", cafile="no-such-file")))


class Gate:
    """An HTTP proxy that lets through who knows its password."""

    def __init__(self, password: str = "") -> None:
        self.through: list[str] = []
        self.refused = 0
        self.port = 0
        self._password = password
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        word, target, _ = head.split(" ", 2)
        wanted = base64.b64encode(f"me:{self._password}".encode()).decode()
        if word != "CONNECT" or (self._password and f"Basic {wanted}" not in head):
            self.refused += 1
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        self.through.append(target)
        host, _, port = target.rpartition(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))

    async def __aenter__(self) -> Self:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def gate(request: pytest.FixtureRequest) -> AsyncIterator[Gate]:
    async with Gate(getattr(request, "param", "")) as made:
        yield made


# So the client calls its library.
as_it_is = pytest.mark.filterwarnings(
    "ignore:BasicAuth is deprecated:DeprecationWarning", "ignore:The 'proxy_auth' parameter:DeprecationWarning"
)


@as_it_is
@pytest.mark.parametrize("gate", ["", "p@ss/word"], indirect=True, ids=["open", "password"])
async def test_by_way_of_a_proxy(secure: ServiceBusServer, gate: Gate) -> None:
    queue = secure.create_queue(new_name())
    access = f"me:{quote('p@ss/word', safe='')}@" if gate._password else ""
    url = far(secure, f"{secure.key_name}:{secure.key}@", proxy=f"http://{access}127.0.0.1:{gate.port}")
    await gets_in(ServiceBusBroker(url), secure, queue)
    assert set(gate.through) == {f"{secure.host}:{secure.port}"}
    assert len(gate.through) == 2


@as_it_is
@pytest.mark.parametrize("gate", ["p@ss/word"], indirect=True)
async def test_a_proxy_that_lets_nobody_through_is_told(secure: ServiceBusServer, gate: Gate) -> None:
    url = far(secure, f"{secure.key_name}:{secure.key}@", proxy=f"http://me:wr0ng@127.0.0.1:{gate.port}")
    broker = ServiceBusBroker(url)
    with pytest.raises(BrokerUnavailable) as caught:
        await broker.open()
    assert gate.refused and not gate.through
    assert "407" in str(caught.value)
    assert "wr0ng" not in str(caught.value) and secure.key not in str(caught.value)
    await broker.close()


# Secrets


@pytest.mark.parametrize("way", ["right", "wrong"])
async def test_no_log_line_has_a_secret(
    plain: ServiceBusServer, queue: str, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    for name in (None, "azure", "azure.core", "azure.servicebus", "uamqp"):
        caplog.set_level(logging.DEBUG, name)
    key = plain.key if way == "right" else "wr0ng-k3y-wr0ng"
    broker = broker_of(plain, connection_string=plain.connection_string_of(key=key))
    if way == "right":
        await gets_in(broker, plain, queue)
    else:
        await stays_out(broker, key)
    assert caplog.records
    text = caplog.text
    assert key not in text and quote(key, safe="") not in text
    assert "SharedAccessSignature" not in text and "sig=" not in text
