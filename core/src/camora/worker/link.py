"""The line between the supervisor and a worker process: a socket pair that only these two hold.

The supervisor asks how the process is, and a thread of the process answers; the process says when it leaves. When one
side is gone, however it went, the other one sees the line end.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import msgspec

from camora.worker.health import WorkerHealth

__all__ = ["ProcessEnd", "SupervisorEnd", "new_link"]


class _Answer(msgspec.Struct, tag="answer"):
    number: int
    health: WorkerHealth


class _Leaving(msgspec.Struct, tag="leaving"):
    """It takes nothing more, finishes what it has begun, and somebody may take its place."""


_SAID = msgspec.json.Decoder(_Answer | _Leaving)


def new_link() -> tuple[SupervisorEnd, socket.socket]:
    """Both ends; the second is for the process that is about to be started."""
    ours, theirs = socket.socketpair()
    return SupervisorEnd(ours), theirs


class SupervisorEnd:
    """The supervisor's end. Safe to use from any thread."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._lock = threading.Condition()
        self._asked = 0
        self._answer: _Answer | None = None
        self._ended = False
        self._listener: threading.Thread | None = None

    def listen(self, leaving: Callable[[], None]) -> None:
        """Hear what the process says, in a thread of this line's own; `leaving` is called there, once at most."""
        self._listener = threading.Thread(target=self._hear, args=(leaving,), name="camora-listener", daemon=True)
        self._listener.start()

    def _hear(self, leaving: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, msgspec.DecodeError), self._socket.makefile("rb") as lines:
            for line in lines:
                said = _SAID.decode(line)
                if isinstance(said, _Leaving):
                    leaving()
                else:
                    with self._lock:
                        self._answer = said
                        self._lock.notify_all()
        with self._lock:
            self._ended = True
            self._lock.notify_all()

    def ask(self, timeout: float) -> WorkerHealth | None:
        """How the process is; None when it has not said so within `timeout` seconds."""
        with self._lock:
            if (
                self._asked == self._heard()
            ):  # one question at a time: nobody reads those to a process that stands still
                self._asked += 1
                try:
                    self._socket.sendall(b"%d\n" % self._asked)
                except OSError:
                    return None
            number = self._asked
            self._lock.wait_for(lambda: self._ended or self._heard() >= number, timeout)
            return self._answer.health if self._answer is not None and self._heard() >= number else None

    def _heard(self) -> int:
        return 0 if self._answer is None else self._answer.number

    def heard_all(self, timeout: float) -> None:
        """Wait until everything that the process said has been heard; it has ended."""
        if self._listener is not None:
            self._listener.join(timeout)

    def close(self) -> None:
        """The process sees that it is alone. May be repeated."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class ProcessEnd:
    """The process's end. Safe to use from any thread."""

    def __init__(self, theirs: socket.socket) -> None:
        self._socket = theirs
        self._lock = threading.Lock()

    def answer_until_alone(self, look: Callable[[], WorkerHealth]) -> None:
        """Answer the supervisor's questions; returns when it is gone. Blocks."""
        with contextlib.suppress(OSError), self._socket.makefile("rb") as questions:
            for question in questions:
                self._say(_Answer(number=int(question), health=look()))

    def leave(self) -> bool:
        """Say that another process may take this one's place; False when nobody hears it."""
        try:
            self._say(_Leaving())
        except OSError:
            return False
        return True

    def _say(self, what: _Answer | _Leaving) -> None:
        with self._lock:
            self._socket.sendall(msgspec.json.encode(what) + b"\n")
