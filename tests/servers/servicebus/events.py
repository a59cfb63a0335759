"""What happened, in order: the oracle of the tests. It outlives the process: a kill loses nothing that was told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.servers.servicebus.entities import Namespace

__all__ = ["Events", "recorded"]

_TOLD = "told"


class Events:
    """JSON lines in a file, each with a number `n` that grows. They reach the kernel by `flush`, before any answer."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lines: list[str] = []
        self._encode = json.JSONEncoder(default=str, separators=(",", ":")).encode
        known = path.read_bytes()
        if known and not known.endswith(b"\n"):
            os.write(self._file, b"\n")  # a kill came in the middle of a line
        whole = [line for line in known.splitlines() if line.endswith(b"}")]
        self._number = json.loads(whole[-1])["n"] if whole else 0

    def tell(self, event: dict[str, Any]) -> tuple[int, str]:
        """Something happened now; its number and its line."""
        self._number += 1
        event.setdefault("at", self._clock())
        event["n"] = self._number
        line = self._encode(event)
        self._lines.append(line)
        return self._number, line

    def recover(self, told: Iterable[tuple[int, str]]) -> None:
        """Write those that a kill kept out of the file, though what they say was done."""
        for number, line in told:
            if number > self._number:
                self._number = number
                self._lines.append(line)
        self.flush()

    def flush(self) -> None:
        """Let nothing be lost that was told."""
        if self._lines:
            data = ("\n".join(self._lines) + "\n").encode()
            self._lines.clear()
            while data:  # a regular file takes all at once, unless the disk is full
                data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """Flush and end."""
        self.flush()
        os.close(self._file)


class _Recorded(Namespace):
    """Writes its events into the journal too, in one frame with what they are about: both are there, or neither."""

    def __init__(self, events: Events, **options: Any) -> None:
        self._events = events
        self._told: list[tuple[int, str]] = []
        self._restored = False
        super().__init__(tell=self._tell, **options)
        self._restored = True
        events.recover(self._told)
        self._told.clear()

    def _tell(self, event: dict[str, Any]) -> None:
        if self._restored:
            self.ground.journal.append((_TOLD, *self._events.tell(event)))

    def _replay(self, record: tuple[Any, ...]) -> None:
        if record[0] == _TOLD:
            self._told.append((record[1], record[2]))
        else:
            super()._replay(record)


def recorded(events: Events, **options: Any) -> Namespace:
    """A namespace, as its journal has it, that tells its events to these."""
    return _Recorded(events, **options)
