"""What happened, in order: the oracle of the tests. It outlives the process: a kill loses nothing that was told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Events"]


class Events:
    """JSON lines in a file. They reach the kernel before anything is answered, by `flush`."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lines: list[str] = []
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            os.write(self._file, b"\n")  # a kill came in the middle of a line
        self._encode = json.JSONEncoder(default=str, separators=(",", ":")).encode

    def tell(self, event: dict[str, Any]) -> None:
        """Something happened now."""
        event.setdefault("at", self._clock())
        self._lines.append(self._encode(event))

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
