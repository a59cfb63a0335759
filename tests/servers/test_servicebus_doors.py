"""The one port of the emulator: AMQP with and without TLS, WebSockets, HTTP, and tokens of any credential."""

from __future__ import annotations

import contextlib
import gc
import http.client
import itertools
import socket
import time
import warnings
from collections.abc import Iterator
from typing import Self

import pytest
from azure.core.credentials import AccessToken
from azure.servicebus import ServiceBusMessage, TransportType
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError

from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.amqp.frames import AMQP_HEADER, SASL, SASL_HEADER, Frames, frame
from tests.servers.servicebus.amqp.performatives import Open, SaslInit, SaslMechanisms, SaslOutcome, read
from tests.servers.servicebus.security import Refused, Tokens, sign, unsigned_jwt

# The client forgets connections that were refused without closing them.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _leaky() -> Iterator[None]:
    """Collect what the client left while nobody is warned, and not in another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Credential:
    """Gives tokens as a credential of the identity library does."""

    def __init__(self, seconds: float, audience: str = "https://servicebus.azure.net") -> None:
        self.given = 0
        self._seconds = seconds
        self._audience = audience

    async def get_token(self, *scopes: str, **kwargs: object) -> AccessToken:
        self.given += 1
        expires = int(time.time() + self._seconds)
        return AccessToken(unsigned_jwt(expires, self._audience), expires)

    async def close(self) -> None:
        """There is nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.close()


@pytest.fixture(scope="module")
def secure() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(tls=True, strict=True) as server:
        yield server


@pytest.fixture(scope="module")
def plain() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(strict=True) as server:
        yield server


async def there_and_back(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = server.create_queue(f"queue{next(_numbers)}")
    large = b"0123456789" * 10_000
    async with client:
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages([ServiceBusMessage("x"), ServiceBusMessage(large)])
        async with client.get_queue_receiver(queue) as receiver:
            messages = await receiver.receive_messages(2, max_wait_time=60)
            if len(messages) < 2:
                messages += await receiver.receive_messages(1, max_wait_time=60)
            for message in messages:
                await receiver.complete_message(message)
    assert [b"".join(message.body) for message in messages] == [b"x", large]
    assert server.counts(queue)["active"] == 0


def need_client_for(transport: TransportType) -> None:
    """Over WebSockets the client goes by a library of its own."""
    if transport is TransportType.AmqpOverWebsocket:
        pytest.importorskip("aiohttp")


@pytest.mark.parametrize("transport", list(TransportType), ids=lambda kind: kind.name)
async def test_tls_with_a_token_credential(secure: ServiceBusServer, transport: TransportType) -> None:
    need_client_for(transport)
    assert secure.certificates is not None
    credential = Credential(3600)
    client = ServiceBusClient(
        "namespace.test",
        credential,
        transport_type=transport,
        custom_endpoint_address=secure.endpoint,
        connection_verify=str(secure.certificates.authority),
    )
    await there_and_back(secure, client)
    assert credential.given >= 2


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # so the client calls its library
async def test_websockets_without_tls(plain: ServiceBusServer) -> None:
    need_client_for(TransportType.AmqpOverWebsocket)
    client = ServiceBusClient.from_connection_string(
        plain.connection_string,
        transport_type=TransportType.AmqpOverWebsocket,
        custom_endpoint_address=plain.endpoint,
    )
    await there_and_back(plain, client)


async def test_a_token_for_something_else_is_refused(plain: ServiceBusServer) -> None:
    queue = plain.create_queue(f"queue{next(_numbers)}")
    credential = Credential(3600, "https://storage.example")
    client = ServiceBusClient(plain.fully_qualified_namespace, credential, use_tls=False, retry_total=0)
    with pytest.raises(ServiceBusError):
        async with client, client.get_queue_sender(queue):
            pass


async def test_a_client_goes_on_with_new_tokens(plain: ServiceBusServer) -> None:
    queue = plain.create_queue(f"queue{next(_numbers)}")
    credential = Credential(4)
    async with (
        ServiceBusClient(plain.fully_qualified_namespace, credential, use_tls=False) as client,
        client.get_queue_receiver(queue) as receiver,
        client.get_queue_sender(queue) as sender,
    ):
        await sender.send_messages(ServiceBusMessage("early"))
        first = credential.given
        found, until = [], time.monotonic() + 60
        while len(found) < 2:
            assert time.monotonic() < until
            # It renews a token in the last tenth of its time; who asks at another moment hears that it has run out.
            with contextlib.suppress(ServiceBusError):
                found += [str(message) for message in await receiver.receive_messages(max_wait_time=2)]
            if credential.given > first and "late" not in plain_ids(plain, queue):
                with contextlib.suppress(ServiceBusError):
                    await sender.send_messages(ServiceBusMessage("late", message_id="late"))
    assert found == ["early", "late"]


def plain_ids(server: ServiceBusServer, queue: str) -> set[str]:
    """The ids of all messages that were ever stored."""
    return {event["message_id"] for event in server.events("stored", entity=queue)}


def test_http_on_the_same_port(plain: ServiceBusServer) -> None:
    queue = plain.create_queue(f"queue{next(_numbers)}")

    def status(token: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(plain.host, plain.port, timeout=30)
        try:
            connection.request("GET", f"/{queue}?api-version=2021-05", headers={"Authorization": token})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    uri = f"http://{plain.fully_qualified_namespace}/{queue}"
    code, body = status(sign(plain.key_name, plain.key, uri, time.time() + 60))
    assert (code, queue.encode() in body) == (200, True)
    assert status(sign(plain.key_name, "wrong", uri, time.time() + 60))[0] == 401
    assert status(f"Bearer {unsigned_jwt(time.time() + 60)}")[0] == 200


def test_websockets_by_the_letter(plain: ServiceBusServer) -> None:
    def said(payload: bytes, code: int = 2) -> bytes:
        mask = b"\x11\x22\x33\x44"
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        return bytes([0x80 | code, 0x80 | len(payload)]) + mask + masked

    with (
        socket.create_connection((plain.host, plain.port), timeout=30) as connection,
        connection.makefile("rb") as file,
    ):

        def heard() -> tuple[int, bytes]:
            code, length = file.read(2)
            return code, file.read(length)

        key = "dGhlIHNhbXBsZSBub25jZQ=="  # and what is to come of it: the example of RFC 6455, 1.3
        connection.sendall(
            b"GET /$servicebus/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: AMQPWSB10\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
            + key.encode() + b"\r\n\r\n"
        )  # fmt: skip
        head = b"".join(iter(file.readline, b"\r\n"))
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        hello = said(AMQP_HEADER)
        connection.sendall(hello[:5])
        connection.sendall(hello[5:] + said(b"are you there", 9))
        assert heard() == (0x8A, b"are you there")
        assert heard() == (0x82, AMQP_HEADER)
        connection.sendall(said(b"\x03\xe8", 8))
        assert heard() == (0x88, b"\x03\xe8")
        assert file.read(1) == b""


def test_whoever_speaks_otherwise_is_told_what_is_spoken_here(plain: ServiceBusServer) -> None:
    with socket.create_connection((plain.host, plain.port), timeout=30) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")  # AMQP 0-9-1
        assert connection.recv(8) == SASL_HEADER


@pytest.mark.parametrize(("right", "outcome"), [(True, 0), (False, 1)])
def test_sasl_plain_with_the_key(plain: ServiceBusServer, right: bool, outcome: int) -> None:
    frames = Frames(65536)
    with (
        socket.create_connection((plain.host, plain.port), timeout=30) as connection,
        connection.makefile("rb") as file,
    ):

        def heard() -> object:
            size = int.from_bytes(head := file.read(4), "big")
            frames.feed(head + file.read(size - 4))
            one = frames.next()
            assert one is not None
            return read(one[2])[0]

        login = f"\0{plain.key_name}\0{plain.key if right else 'wrong'}".encode()
        connection.sendall(SASL_HEADER + frame(0, SaslInit("PLAIN", login).encode(), SASL))
        assert file.read(8) == SASL_HEADER
        offered = heard()
        assert isinstance(offered, SaslMechanisms)
        assert set(offered.mechanisms) == {"MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"}
        assert heard() == SaslOutcome(outcome)
        if right:
            connection.sendall(AMQP_HEADER + frame(0, Open("me", idle_time_out=600).encode()))
            assert file.read(8) == AMQP_HEADER
            assert isinstance(heard(), Open)
            assert file.read(8) == b"\x00\x00\x00\x08\x02\x00\x00\x00"  # a heartbeat: the client asked for them
        else:
            assert file.read(1) == b""


def test_a_client_that_says_nothing_is_dropped() -> None:
    with (
        ServiceBusServer(idle_timeout=0.4) as server,
        socket.create_connection((server.host, server.port)) as connection,
    ):
        connection.settimeout(60)
        connection.sendall(AMQP_HEADER + frame(0, Open("me").encode()))
        heard = b""
        while data := connection.recv(4096):
            heard += data
        assert b"amqp:resource-limit-exceeded" in heard


def test_tokens() -> None:
    tokens = Tokens({"root": "key"}, lambda: 1000.0, strict=True)
    uri = "sb://host/queue"

    assert tokens.check("jwt", sign("root", "key", uri, 2000), uri) == 2000
    assert tokens.check("jwt", sign("root", "key", uri, 2000), f"{uri}/$management") == 2000
    assert tokens.check("jwt", sign("root", "key", "sb://host/", 2000), uri) == 2000
    assert tokens.check("jwt", unsigned_jwt(2000), uri) == 2000
    for token, why in [
        (sign("root", "other", uri, 2000), "InvalidSignature"),
        (sign("nobody", "key", uri, 2000), "InvalidSignature"),
        (sign("root", "key", uri, 999), "ExpiredToken"),
        (sign("root", "key", "sb://host/queu", 2000), "not for 'queue'"),
        (unsigned_jwt(999), "ExpiredToken"),
        (unsigned_jwt(2000, "https://elsewhere"), "InvalidAudience"),
        ("nonsense", "MalformedToken"),
        ("SharedAccessSignature sr=x", "MalformedToken"),
    ]:
        with pytest.raises(Refused, match=why):
            tokens.check("jwt", token, uri)
