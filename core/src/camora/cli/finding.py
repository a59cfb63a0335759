"""Finding the app that a command is about."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from camora.errors import CamoraError, ConfigurationError

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["find_app", "import_app"]


def find_app(reference: str | None = None, *, config: Path | str | None = None, profile: str | None = None) -> Camora:
    """The app a command is about.

    `reference` is `module:attribute`; without it, what `app =` of camora.toml says, and where that says nothing, an
    app made of the file's own settings, without tasks. `config` and `profile` are left in the environment, so that an
    app that reads the file itself, and worker processes, see the same ones. Raises `ConfigurationError` that says what
    to write.
    """
    if profile is not None:
        os.environ["CAMORA_PROFILE"] = profile
    if config is not None:
        os.environ["CAMORA_CONFIG"] = str(Path(config).resolve())
    if reference is not None:
        return import_app(reference)
    from camora.app import Camora
    from camora.config import find, read

    path = find()
    if path is None:
        raise ConfigurationError(
            f"which app? There is no camora.toml in {Path.cwd()} or above. Say --app module:attribute (for example "
            '--app tasks:app), or write  app = "tasks:app"  into a camora.toml (camora init makes one)'
        )
    settings = read(path, profile=profile)
    _look_in(settings.path.resolve().parent)
    if settings.app:
        return import_app(settings.app)
    return Camora.from_toml(path, profile=profile)


def import_app(reference: str) -> Camora:
    """The app of this name. What the user's own module raises is told in few words, with its file and line."""
    from camora.app import Camora
    from camora.reference import import_object

    _look_in(Path.cwd())
    try:
        found: Any = import_object(reference)
    except ConfigurationError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise ConfigurationError(f"{error}{_place(error.__cause__)}") from error
    except CamoraError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"app {reference!r} cannot be imported: {_told(error)}") from error
    if not isinstance(found, Camora):
        raise ConfigurationError(f"app {reference!r}: is a {type(found).__name__}, not a Camora")
    return found


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _told(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        line = (error.text or "").strip()
        return f"{type(error).__name__}: {error.msg}\n  {_near(error.filename or '?')}, line {error.lineno}: {line}"
    text = "".join(traceback.format_exception_only(error)).strip()
    return f"{text}{_place(error)}"


def _place(error: BaseException) -> str:
    """Where it was raised, on a line of its own."""
    frame = _users_frame(error.__traceback__)
    return f"\n  {_near(frame.filename)}, line {frame.lineno}: {frame.line}" if frame else ""


def _users_frame(trace: TracebackType | None) -> traceback.FrameSummary | None:
    """The innermost line of the user's own: in the working folder and not installed; else the innermost of all."""
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith("<frozen")]
    here = str(Path.cwd())
    own = [frame for frame in frames if frame.filename.startswith(here) and "site-packages" not in frame.filename]
    return (own or frames)[-1] if frames else None


def _near(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename
