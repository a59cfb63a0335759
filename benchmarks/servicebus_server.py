"""Azure Service Bus: the emulator of the tests, a private process. A namespace of one's own is nothing to measure with.

What it answers takes CPU of this machine, and none of the network's time: only ratios between two who use it count.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.servers import Server, free_port, running

__all__ = ["QUEUE", "ServiceBusEmulator", "servicebus_server"]

QUEUE = "default"
"""The one queue that there is; all entrants use it."""
_ROOT = Path(__file__).resolve().parents[1]
_KEY_NAME = "RootManageSharedAccessKey"


class ServiceBusEmulator(Server):
    """Its one queue is deleted and made anew by the commands that tests give it."""

    kind = "servicebus"
    name = "the emulator of Azure Service Bus in tests/servers"

    def __init__(self, port: int, control_port: int, key: str) -> None:
        super().__init__(f"servicebus://{_KEY_NAME}:{key}@127.0.0.1:{port}?emulator=true")
        self._control = ("127.0.0.1", control_port)

    def clear(self) -> None:
        """Make the queue anew, without a message in it, with the locks of a minute that queues have."""
        with contextlib.suppress(ValueError):
            self._ask("delete", kind="queue", name=QUEUE)
        self._ask("create", kind="queue", name=QUEUE, lock_duration=60.0, max_delivery_count=20)

    def answers(self) -> bool:
        """Whether it takes commands."""
        with contextlib.suppress(OSError):
            return bool(self._ask("ping") == "pong")
        return False

    def _ask(self, do: str, **fields: Any) -> Any:
        """Raises `ValueError` for what it refuses."""
        with socket.create_connection(self._control, timeout=30) as connection:
            connection.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["ok"]


@contextlib.contextmanager
def servicebus_server() -> Iterator[ServiceBusEmulator]:
    """A private one. Raises `NoServer`."""
    with tempfile.TemporaryDirectory(prefix="camora-bench-servicebus-", ignore_cleanup_errors=True) as name:
        folder, port, control, key = Path(name), free_port(), free_port(), os.urandom(24).hex()
        server = ServiceBusEmulator(port, control, key)
        command = [
            sys.executable, "-m", "tests.servers.servicebus", "--folder", str(folder), "--port", str(port),
            "--control-port", str(control), "--keys", json.dumps({_KEY_NAME: key}),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        with running(command, folder / "server.log", server.answers, end=signal.SIGKILL, environment=environment):
            server.clear()
            yield server
