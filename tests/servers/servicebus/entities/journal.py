"""What has happened, one record after the other, in a file: a killed server finds it all again.

A frame is written in one go, before anything is answered; the kernel has it then, and a killed process loses nothing.
(A machine that loses its power may: nothing is synced to the disk.) A frame cut short by a kill was never answered.
"""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct
from typing import Any

__all__ = ["Journal", "Record"]

Record = tuple[Any, ...]
_head = Struct(">II")
_protocol = pickle.HIGHEST_PROTOCOL


class Journal:
    """Records to come and records that were. Without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._waiting: list[Record] = []
        self._file = -1

    def read(self) -> Iterator[Record]:
        """All that is there, up to the first frame that is not whole."""
        if self.path is None or not self.path.exists():
            return
        with self.path.open("rb") as file:
            while len(head := file.read(_head.size)) == _head.size:
                length, check = _head.unpack(head)
                frame = file.read(length)
                if len(frame) < length or zlib.crc32(frame) != check:
                    return
                yield from pickle.loads(frame)

    def begin(self, records: Iterable[Record]) -> None:
        """Start anew with these, which say the same as all that was there; the old file stays until this is whole."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.new")
        with fresh.open("wb") as file:
            for record in records:
                file.write(_framed([record]))
        fresh.replace(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def append(self, record: Record) -> None:
        """Write it with the next flush."""
        if self._file >= 0:
            self._waiting.append(record)

    def flush(self) -> None:
        """Give all that waits to the kernel, in one frame: all of it counts, or nothing."""
        if self._waiting:
            frame = memoryview(_framed(self._waiting))
            self._waiting = []
            while frame:
                frame = frame[os.write(self._file, frame) :]

    def close(self) -> None:
        """Write what waits, and end."""
        if self._file >= 0:
            self.flush()
            os.close(self._file)
            self._file = -1


def _framed(records: list[Record]) -> bytes:
    frame = pickle.dumps(records, _protocol)
    return _head.pack(len(frame), zlib.crc32(frame)) + frame
