"""The line between the supervisor and a worker process: a socket pair that only these two hold.

The supervisor asks how the process is; a thread of the process answers. When one side is gone, however it went, the
other one sees the line end.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from camora.worker.health import WorkerHealth

__all__ = ["SupervisorEnd", "answer_until_alone", "new_link"]

_LONGEST = 1 << 20


class _Answer(msgspec.Struct):
    number: int
    health: WorkerHealth


def new_link() -> tuple[SupervisorEnd, socket.socket]:
    """Both ends; the second is for the process that is about to be started."""
    ours, theirs = socket.socketpair()
    return SupervisorEnd(ours), theirs


class SupervisorEnd:
    """The supervisor's end. Safe to use from any thread."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._lock = threading.Lock()
        self._unread = b""
        self._asked = 0

    def ask(self, timeout: float) -> WorkerHealth | None:
        """How the process is; None when it has not said so within `timeout` seconds."""
        with self._lock:
            self._asked += 1
            deadline = time.monotonic() + timeout
            try:
                self._socket.settimeout(timeout)
                self._socket.sendall(b"%d\n" % self._asked)
                while True:
                    answer = msgspec.json.decode(self._line(deadline), type=_Answer)
                    if answer.number == self._asked:  # and not a late one to an earlier question
                        return answer.health
            except (OSError, EOFError, msgspec.DecodeError):
                return None

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._unread:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            more = self._socket.recv(65536)
            if not more or len(self._unread) > _LONGEST:
                raise EOFError
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def close(self) -> None:
        """The process sees that it is alone. May be repeated."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def answer_until_alone(theirs: socket.socket, look: Callable[[], WorkerHealth]) -> None:
    """Answer the supervisor's questions; returns when it is gone. Blocks."""
    with contextlib.suppress(OSError), theirs.makefile("rb") as questions:
        for question in questions:
            answer = _Answer(number=int(question), health=look())
            theirs.sendall(msgspec.json.encode(answer) + b"\n")
