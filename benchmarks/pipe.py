"""The reading end of the named pipe through which jobs tell that they ran."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

__all__ = ["Pipe"]


class Pipe:
    """Belongs to one event loop. Lines are split into words."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # Read and write: so that opening does not wait for a writer, and its end is no end of file.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""
        self._lines: asyncio.Queue[list[str]] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._lines.put_nowait(line.decode().split())

    async def next(self) -> list[str]:
        """The next line."""
        return await self._lines.get()

    def close(self) -> None:
        """Close the reading end."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
