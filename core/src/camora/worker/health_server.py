"""The health endpoint: a very small HTTP server in a thread of its own.

It answers while the worker's loop stands still, which is when somebody wants to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus

import msgspec

from camora.errors import ConfigurationError
from camora.worker.health import Health

__all__ = ["HealthServer", "parse_address"]

_PATIENCE = 5.0
"""Seconds a client may take for its question, and we for the answer."""
_LONGEST_HEAD = 8192


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`. Raises `ConfigurationError`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"health address {text!r}: write host:port, for example 127.0.0.1:8080")
    return host, int(port)


class HealthServer:
    """Serves `/live`, `/ready` (200 or 503) and `/` (always 200), all as JSON. `look` is called in a thread.

    Raises `ConfigurationError` when the address is impossible or taken.
    """

    def __init__(self, address: str, look: Callable[[], Health], *, logger: logging.Logger) -> None:
        self._look = look
        self._logger = logger
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._started = threading.Event()
        host, port = parse_address(address)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ConfigurationError(f"health address {address!r}: cannot listen there ({error.strerror})") from None
        self._thread = threading.Thread(target=self._run, name="camora-health", daemon=True)

    @property
    def address(self) -> str:
        """Where it listens; the port is the real one where 0 was asked for."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        self._started.wait()
        self._logger.info("health at http://%s/ready and /live", self.address)

    def close(self) -> None:
        """End the thread. May be repeated."""
        if self._loop is not None and self._ended is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(_PATIENCE)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, sock=self._socket, limit=_LONGEST_HEAD)
        self._started.set()
        await self._ended.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = await self._respond(head)
                writer.write(_response(status, body, with_body=not head.startswith(b"HEAD ")))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that went away, or does not speak HTTP
        except Exception:
            self._logger.exception("the health endpoint failed")
        finally:
            writer.close()

    async def _respond(self, head: bytes) -> tuple[HTTPStatus, bytes]:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        if method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, b'{"error": "only GET and HEAD"}'
        if path not in ("/", "/live", "/ready"):
            return HTTPStatus.NOT_FOUND, b'{"error": "there are /live, /ready and /"}'
        health = await asyncio.to_thread(self._look)
        well = {"/live": health.live, "/ready": health.ready}.get(path, True)
        body = msgspec.json.format(msgspec.json.encode(health), indent=2)
        return HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, body


def _response(status: HTTPStatus, body: bytes, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body) + 1}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body + b"\n" if with_body else b"")
