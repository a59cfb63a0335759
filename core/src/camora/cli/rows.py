"""Dispatching a job for each line of a file: all lines are looked at before the first is sent."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs

from camora.cli.output import note, progress
from camora.errors import CamoraError, ConfigurationError
from camora.signature import Signature

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["Rows", "opened"]


@contextmanager
def opened(source: str) -> Iterator[IO[str]]:
    """The lines of a file, or of stdin (`-`), to be read more than once. Raises `ConfigurationError`."""
    if source == "-":
        with _copy(sys.stdin) as copy:
            yield copy
        return
    try:
        file = Path(source).open(encoding="utf-8")  # noqa: SIM115 -- closed below
    except OSError as error:
        raise ConfigurationError(f"--from {source}: cannot be read: {error.strerror or error}") from None
    with file:
        if file.seekable():
            yield file
            return
        with _copy(file) as copy:  # a pipe
            yield copy


@contextmanager
def _copy(stream: IO[str]) -> Iterator[IO[str]]:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as copy:
        shutil.copyfileobj(stream, copy)
        yield copy


@attrs.frozen
class Rows:
    """Lines, each a JSON object (arguments by name) or a JSON list (by position), as calls of one task."""

    app: Camora
    call: Signature[Any]
    """The task and its options, without arguments."""
    file: IO[str]
    name: str

    def check(self) -> int:
        """How many there are. Raises `ConfigurationError` naming the first line that cannot be dispatched."""
        count = 0
        for number, signature in self._read():
            try:
                self.app._dispatcher.build(signature)  # noqa: SLF001 -- one unit with the app
            except CamoraError as error:
                raise self._wrong(number, str(error)) from None
            count += 1
        return count

    async def dispatch(self, total: int) -> None:
        """Send them, in batches; raises what a dispatch raises, after saying how many were sent."""
        done = 0
        try:
            with progress("dispatching", total=total) as step:
                async for _ in self.app.dispatch_many(signature for _, signature in self._read()):
                    done += 1
                    step()
        except CamoraError:
            note(f"{done} of {total} were dispatched before this:")
            raise

    def _read(self) -> Iterator[tuple[int, Signature[Any]]]:
        self.file.seek(0)
        try:
            for number, line in enumerate(self.file, 1):
                if line.strip():
                    args, kwargs = self._arguments(number, line)
                    yield number, Signature(self.call.task, args, kwargs, options=self.call.options_)
        except UnicodeDecodeError:
            raise ConfigurationError(f"--from {self.name}: is not UTF-8 text") from None

    def _arguments(self, number: int, line: str) -> tuple[list[Any], dict[str, Any]]:
        try:
            found = json.loads(line)
        except ValueError as error:
            raise self._wrong(number, f"is no JSON: {error}") from None
        if isinstance(found, list):
            return found, {}
        if isinstance(found, dict):
            return [], found
        raise self._wrong(number, "write an object of arguments by name, or a list of them by position")

    def _wrong(self, number: int, text: str) -> ConfigurationError:
        return ConfigurationError(f"--from {self.name}, line {number}: {text}; nothing was dispatched")
