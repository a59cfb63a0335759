"""What is met where a sound server was expected, and the command line that says so."""

from __future__ import annotations

import contextlib
import os
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests import forked

__all__ = ["OldServer", "run_command"]


class OldServer:
    """Answers what a client asks when it connects, as a Redis of this version does, and nothing else.

    No such old server can be had: what its answers look like is all that counts. A "HELLO" came with 6.0.
    """

    def __init__(self, version: str, *, hello: bool) -> None:
        self.version = version
        self.hello = hello
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    while words := _command(self.rfile):
                        self.wfile.write(outer.answer(words))

        class Listening(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Listening(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.port: int = self._server.server_address[1]

    def answer(self, words: list[str]) -> bytes:
        """The bytes of an answer."""
        name = words[0].upper()
        if name == "INFO":
            text = (
                f"# Server\r\nredis_version:{self.version}\r\nredis_mode:standalone\r\n# Replication\r\nrole:master\r\n"
            )
            return f"${len(text)}\r\n{text}\r\n".encode()
        if name == "HELLO" and self.hello:
            if words[1:2] == ["3"]:
                return f"%3\r\n+server\r\n+redis\r\n+version\r\n+{self.version}\r\n+proto\r\n:3\r\n".encode()
            return f"*6\r\n+server\r\n+redis\r\n+version\r\n+{self.version}\r\n+proto\r\n:2\r\n".encode()
        if name == "WAIT" or (name == "CLIENT" and words[1].upper() in ("ID", "UNBLOCK")):
            return b":1\r\n"
        if name in ("SELECT", "CLIENT", "PING"):
            return b"+OK\r\n"
        if name in ("EVALSHA", "EVAL"):
            return b"*0\r\n"
        arguments = "".join(f"`{word}`, " for word in words[1:])
        return f"-ERR unknown command `{words[0]}`, with args beginning with: {arguments}\r\n".encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _command(stream: Any) -> list[str]:
    line = stream.readline()
    if not line:
        return []
    words = []
    for _ in range(int(line[1:])):
        size = int(stream.readline()[1:])
        words.append(stream.read(size + 2)[:-2].decode())
    return words


def run_command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `camora …` in a folder that has an app in `tasks.py`, in a process of its own, and wait for its end."""
    app = () if "--app" in arguments else ("tasks:app",) if arguments[0] == "worker" else ("--app", "tasks:app")
    return forked.run(
        [sys.executable, "-m", "camora", arguments[0], *app, *arguments[1:]],
        cwd=folder,
        env={**os.environ, "COLUMNS": "400", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
