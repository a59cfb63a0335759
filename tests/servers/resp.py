"""A plain client for the tests' own commands: blocking, one connection, and no code of the client under test."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

__all__ = ["Connection", "ReplyError"]


class ReplyError(Exception):
    """The server's error reply; its text begins with the code."""


class Connection:
    """One connection. `address` is host and port, or the path of a socket; `timeout` is in seconds, for each read."""

    def __init__(
        self,
        address: tuple[str, int] | Path,
        *,
        password: str | None = None,
        user: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 10,
    ) -> None:
        self._buffer = bytearray()
        if isinstance(address, Path):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout)
            self._socket.connect(str(address))
        else:
            self._socket = socket.create_connection(address, timeout)
        try:
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=str(address[0]))  # type: ignore[index]
            if password is not None:
                self.call("AUTH", *([user] if user else []), password)
        except BaseException:
            self.close()
            raise

    @classmethod
    def to(cls, url: str) -> Connection:
        """A connection to a redis:// or rediss:// URL, in its database; a certificate must be one the system trusts."""
        parts = urlsplit(url)
        connection = cls(
            (parts.hostname or "localhost", parts.port or 6379),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=ssl.create_default_context() if parts.scheme == "rediss" else None,
        )
        if database := parts.path.strip("/"):
            connection.call("SELECT", database)
        return connection

    def call(self, *args: object) -> Any:
        """Send a command and wait for its reply: text, a number, a list or None. Raises `ReplyError`, or `OSError`."""
        self.send(*args)
        return self.receive()

    def send(self, *args: object) -> None:
        """Send a command, and do not wait."""
        parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))

    def receive(self) -> Any:
        """Wait for one reply. After a TimeoutError it may be waited for again, if nothing of it had come."""
        line = self._line()
        kind, rest = line[:1], line[1:].decode(errors="surrogateescape")
        match kind:
            case b"+":
                return rest
            case b"-":
                raise ReplyError(rest)
            case b":":
                return int(rest)
            case b"$" if int(rest) >= 0:
                return self._take(int(rest) + 2)[:-2].decode(errors="surrogateescape")
            case b"*" if int(rest) >= 0:
                return [self._item() for _ in range(int(rest))]
            case b"$" | b"*":
                return None
        raise ConnectionError(f"this is no RESP reply: {line!r}")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._read()
        return self._take(end + 2)[:-2]

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._read()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _read(self) -> None:
        # Not a file of the socket's: that cannot be read any more after a time-out.
        if not (data := self._socket.recv(65536)):
            raise ConnectionError("the server closed the connection")
        self._buffer += data

    def _item(self) -> Any:
        try:
            return self.receive()
        except ReplyError as error:  # one command of a transaction failed
            return error
