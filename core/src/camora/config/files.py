"""Finding the file, and reading it."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from camora.config.layers import Layer
from camora.config.locate import Position, locate
from camora.config.places import Place, dotted
from camora.errors import SettingsError

__all__ = ["find", "read_file", "shown_path"]

NAME = "camora.toml"
_CONFIG = "CAMORA_CONFIG"
_PROJECT = "pyproject.toml"
_IN_PROJECT = ("tool", "camora")


def find(start: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Path | None:
    """The settings for this folder: the nearest upwards, or None.

    That is `camora.toml`, or a `pyproject.toml` that has a table `[tool.camora]`. Of both in one folder it is
    `camora.toml`. Without `start` it is what `CAMORA_CONFIG` of `environ` (default: `os.environ`) names, else the
    nearest one from the working folder upwards.
    """
    named = (os.environ if environ is None else environ).get(_CONFIG)
    if start is None and named:
        return Path(named)
    folder = Path(start or Path.cwd()).resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / NAME).is_file():
            return candidate / NAME
        if _has_table(candidate / _PROJECT):
            return candidate / _PROJECT
    return None


def _has_table(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        return "camora" in text and isinstance(tomllib.loads(text)["tool"]["camora"], dict)
    except tomllib.TOMLDecodeError:
        # Somebody else's file, unless it seems to hold our table: then its reader says what is wrong.
        return re.search(r"(?m)^\s*\[\s*tool\s*\.\s*camora\b", text) is not None
    except (OSError, UnicodeDecodeError, KeyError, TypeError):
        return False


def shown_path(path: Path) -> str:
    """A path as errors name it: from the working folder where it is below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read_file(path: Path) -> Layer:
    """What the file says, each key with its place. Raises `SettingsError` for a file that is no TOML."""
    label = shown_path(path)
    try:
        # Universal newlines, as tomllib has them; and some editors begin a file with a mark.
        text = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except OSError as error:
        raise _wrong(label, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise _wrong(label, f"is not UTF-8 text (byte {error.start + 1})") from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax(label, text, str(error)) from None
    places = {keys: Place(layer="file", name=label, position=at) for keys, at in locate(text).items()}
    layer = Layer(data, places)
    if path.name != _PROJECT:
        return layer
    if not isinstance(data.get("tool", {}).get("camora"), dict):
        raise _wrong(label, "has no table [tool.camora]")
    return layer.below(*_IN_PROJECT)


def _wrong(label: str, text: str) -> SettingsError:
    return SettingsError(f"{label}: {text}", problems=[f"{label}: {text}"])


def _syntax(label: str, text: str, message: str) -> SettingsError:
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None:
        return _wrong(label, f"is no TOML: {message}")
    lines = text.split("\n")
    position = Position(int(found[2] or len(lines)), int(found[3] or len(lines[-1]) + 1))
    return _wrong(f"{label}:{position.line}:{position.column}", _told(found[1]))


def _told(message: str) -> str:
    twice = re.fullmatch(r"Cannot declare \((.*)\) twice", message)
    if twice is None:
        return f"is no TOML: {message}"
    names = ast.literal_eval(f"({twice[1]})")
    return f"[{dotted(names)}] stands here twice: put its settings into one table"


def folder_of(path: Path) -> str:
    """The folder from which its relative paths and modules are looked up."""
    return os.fspath(path.resolve().parent)
