"""As much of HTTP/1.1 as the management interface needs: requests with a length, answers, connections that stay."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

__all__ = ["Answer", "Asked", "Conversation", "serve"]

LONGEST = 1024 * 1024


@attrs.frozen
class Asked:
    """A request. Names of headers are in small letters; the path is unquoted."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class Answer:
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/atom+xml;type=entry;charset=utf-8"

    def encoded(self, close: bool) -> bytes:
        """As it goes over the wire."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(["Connection: close"] if close else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


class Conversation:
    """One connection: bytes in, bytes out. When `closed`, the connection is to be closed after what was returned."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.closed = False
        self._answer = answer
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        """What to send back for this."""
        self._buffer += data
        out = b""
        while not self.closed and (asked := self._next()) is not None:
            if isinstance(asked, Answer):
                self.closed = True
                return out + asked.encoded(close=True)
            self.closed = asked.headers.get("connection", "").lower() == "close"
            out += self._answer(asked).encoded(self.closed)
        return out

    def _next(self) -> Asked | Answer | None:
        """The next whole request; an answer if it cannot be read, none if more has to come first."""
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return Answer(431, content_type="text/plain") if len(head) > LONGEST else None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers:
            return Answer(411, b"send a Content-Length", "text/plain")
        parts = first.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or not length.isdigit():
            return Answer(400, b"not a request of HTTP/1.1", "text/plain")
        if int(length) > LONGEST:
            return Answer(413, content_type="text/plain")
        if len(rest) < int(length):
            return None
        body, self._buffer = rest[: int(length)], rest[int(length) :]
        url = urlsplit(parts[1])
        return Asked(parts[0], unquote(url.path), dict(parse_qsl(url.query)), headers, body)


async def serve(
    answer: Callable[[Asked], Answer], host: str, port: int = 0, *, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """A server on a port of its own. Answers are made in the loop, one after the other."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(answer)
        try:
            while not conversation.closed and (data := await reader.read(65536)):
                writer.write(conversation.feed(data))
                await writer.drain()
        except ConnectionError:
            pass  # who has gone needs no answer
        finally:
            writer.close()

    return await asyncio.start_server(converse, host, port, ssl=tls)
