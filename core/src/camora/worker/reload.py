"""Watching an app's files, so that its worker starts over when one of them changes."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from camora.errors import ConfigurationError

__all__ = ["FileWatch", "folders_of"]

_CONFIGURATION = ("camora.toml", "pyproject.toml")


def folders_of(reference: str, *, here: Path, configuration: Path | None = None) -> list[Path]:
    """The folders whose files make up this app: the working folder, where the app lies in it, else its package's own.

    The folder of `configuration`, the camora.toml in use, belongs to them. Does not import the app.
    """
    home = _home_of(reference, here)
    folders = {here if home.is_relative_to(here) and here != Path(here.anchor) else home}
    if configuration is not None:
        folders.add(configuration.resolve().parent)
    return sorted(folder for folder in folders if not any(parent in folders for parent in folder.parents))


def _home_of(reference: str, here: Path) -> Path:
    """The folder of the app's outermost package, or of its module."""
    module = reference.partition(":")[0]
    if module.endswith(".py"):
        return (here / module).resolve().parent
    name = module.partition(".")[0]
    for entry in [here, *map(Path, sys.path)]:
        if (entry / name).is_dir():
            return (entry / name).resolve()
        if (entry / f"{name}.py").is_file():
            return entry.resolve()
    found = importlib.util.find_spec(name)
    if found is None or not found.origin:
        raise ConfigurationError(f"app {reference!r}: there is no module {name!r} (looked in {here} and sys.path)")
    return Path(found.origin).resolve().parent


class FileWatch:
    """Calls `changed`, in a thread of its own, with the Python and configuration files that changed at one moment.

    Folders such as `.git`, `.venv` and `__pycache__` are left out. Raises `ConfigurationError` without watchfiles.
    """

    def __init__(
        self, folders: Sequence[Path], changed: Callable[[list[Path]], None], *, logger: logging.Logger
    ) -> None:
        try:
            import watchfiles
        except ImportError:
            raise ConfigurationError('--reload needs watchfiles: pip install "camora[reload]"') from None
        self._watchfiles: Any = watchfiles
        self._folders = folders
        self._changed = changed
        self._logger = logger
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="camora-reload", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End the thread. May be repeated."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        ours = self._watchfiles.DefaultFilter()
        try:
            for changes in self._watchfiles.watch(
                *self._folders,
                watch_filter=lambda change, path: _matters(path) and ours(change, path),
                stop_event=self._ended,
                debounce=400,
                rust_timeout=500,
                raise_interrupt=False,
            ):
                self._changed(_sorted(path for _, path in changes))
        except Exception as error:  # noqa: BLE001 -- out of watches, a folder that went away: the worker goes on
            text = "files are not watched any more (%s); start again to have changes noticed"
            self._logger.error(text, error)  # noqa: TRY400 -- the text says it all


def _matters(path: str) -> bool:
    return path.endswith(".py") or path.endswith(_CONFIGURATION)


def _sorted(paths: Iterable[str]) -> list[Path]:
    return sorted({Path(path) for path in paths})
