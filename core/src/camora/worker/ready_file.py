"""A file that is there while a worker is ready, for those who watch files rather than ports."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from camora.errors import ConfigurationError
from camora.worker.health import Health

__all__ = ["ReadyFile"]

_BEAT = 2.0
_IMPATIENCE = 0.5


class ReadyFile:
    """Touches the file every two seconds while the worker is ready; removes it when it is not, and at the end.

    A killed process leaves it behind: its age tells. Raises `ConfigurationError` where it cannot be written.
    """

    def __init__(self, path: str | Path, look: Callable[[], Health], *, logger: logging.Logger) -> None:
        self._path = Path(path)
        self._look = look
        self._logger = logger
        self._ended = threading.Event()
        try:
            self._path.touch()
            self._path.unlink()
        except OSError as error:
            raise ConfigurationError(f"ready file {str(path)!r}: cannot be written ({error.strerror})") from None
        self._thread = threading.Thread(target=self._keep, name="camora-ready-file", daemon=True)

    def start(self) -> None:
        """Begin to keep it."""
        self._thread.start()

    def close(self) -> None:
        """Remove it. May be repeated."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._path.unlink(missing_ok=True)

    def _keep(self) -> None:
        while not self._ended.is_set():
            ready = self._look().ready
            with contextlib.suppress(OSError):  # a full disk or a lost folder is no reason to end a worker
                if ready:
                    self._path.touch()
                else:
                    self._path.unlink(missing_ok=True)
            self._ended.wait(_BEAT if ready else _IMPATIENCE)
