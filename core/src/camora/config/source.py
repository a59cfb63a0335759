"""Reading values out of the merged layers: references, variables, places, and nothing secret shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from camora.config.layers import Layer, is_reference
from camora.config.locate import KeyPath, Position
from camora.config.places import Place, dotted, nearest
from camora.config.secrets import MASK, is_secret_key, passwords_in, scrubbed_error
from camora.config.sections import types_in_a_file
from camora.config.variables import names_in, substituted
from camora.settings import mask_url
from camora.structuring import WRONG, Problem, Structuring

__all__ = ["Source"]


class Source(Structuring):
    """The merged settings, as they are read section by section.

    `ignore_missing`: a `${VAR}` or `{ env = … }` that is not set is no problem; nothing is made of it.
    """

    def __init__(
        self, layer: Layer, *, file: Place, folder: Path, environ: Mapping[str, str], ignore_missing: bool = False
    ) -> None:
        super().__init__()
        self.places = layer.places
        self.file = file
        self.secrets: set[str] = set()
        """Texts that must appear nowhere."""
        self.hidden: set[KeyPath] = set()
        self.in_url: set[KeyPath] = set()
        """Settings that the URL beside them says."""
        self.tables: dict[KeyPath, list[tuple[type[Any], Mapping[str, Any]]]] = {}
        """Which classes each table was read into, with what was given: for those who show the settings."""
        self.resolved: dict[KeyPath, str] = {}
        """The texts that references stood for."""
        self.through: dict[KeyPath, str] = {}
        """The variables and files, in words, that values were read from."""
        self.folder = folder
        self._environ = environ
        self._ignore_missing = ignore_missing
        self._substituted: set[KeyPath] = set()
        self._left_out: set[KeyPath] = set()
        self.data = self._with_variables(layer.data, ())

    # ${VAR}

    def _with_variables(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self._with_variables(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._with_variables(item, (*path, index)) for index, item in enumerate(value)]
        place = self.place(path)
        if not isinstance(value, str) or place.layer == "variable":
            return value  # what a variable says, it says literally
        mistakes: list[str] = []
        found = substituted(value, self._environ, mistakes.append)
        if found is None:
            return value
        for text in mistakes:
            self._missing(path, text)
        self._substituted.add(path)
        if names := names_in(value):
            self.through[path] = ", ".join(f"variable {name}" for name in names)
        if is_secret_key(path):
            self.hide(path)
            self.secrets.add(found)
        return WRONG if mistakes else found

    # What Structuring asks

    def text(self, given: Any, path: KeyPath) -> Any:
        """A text; what `{ env = … }` or `{ file = … }` stands for; or a variable's own text, whatever it looks like."""
        if path in self.resolved:
            return self.resolved[path]
        if isinstance(given, str):
            found: Any = given
        elif is_reference(given):
            self.hide(path)
            found = self.resolved[path] = self._referenced(given, path)
        else:
            found = self._raw(path)
        if isinstance(found, str):
            self.secrets |= {found} if self.is_hidden(path) else passwords_in(found)
        return found

    def _raw(self, path: KeyPath) -> Any:
        place = self.places.get(path)
        return WRONG if place is None or place.raw is None else place.raw

    def _referenced(self, given: Mapping[str, str], path: KeyPath) -> Any:
        [(kind, name)] = given.items()
        self.through[path] = f"{'variable' if kind == 'env' else 'file'} {name}"
        if kind == "env":
            if name in self._environ:
                return self._environ[name]
            return self._missing(path, f"variable {name!r} is not set")
        try:
            return (self.folder / name).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            return self._missing(path, f"file {name!r} cannot be read: {error.strerror or error}")
        except UnicodeDecodeError:
            return self.note(path, f"file {name!r} is not UTF-8 text")

    def _missing(self, path: KeyPath, text: str) -> Any:
        if not self._ignore_missing:
            return self.note(path, text)
        self._left_out.add(path)
        return WRONG

    def loose(self, given: Any, path: KeyPath) -> str | None:
        """Texts of variables, and what references stand for, are read as other values too."""
        place = self.places.get(path)
        if place is not None and place.raw is not None and isinstance(given, str):
            return place.raw
        from_elsewhere = path in self._substituted or path in self.resolved
        return given if from_elsewhere and isinstance(given, str) else None

    def hide(self, path: KeyPath) -> None:
        """Remember that this value is secret."""
        self.hidden.add(path)

    def is_hidden(self, path: KeyPath) -> bool:
        """True for a value that must not be shown."""
        return path in self.hidden or is_secret_key(path)

    def shown(self, given: Any, path: KeyPath) -> str:
        """A wrong value in an error: short, and without secrets."""
        if self.is_hidden(path):
            return MASK
        if isinstance(given, Mapping):
            return "a table"
        if isinstance(given, (list, tuple)):
            return "an array"
        if isinstance(given, bool):
            return "true" if given else "false"
        if isinstance(given, (datetime, date, time)):
            return given.isoformat()
        text = repr(mask_url(given)) if isinstance(given, str) else repr(given)
        text = scrubbed_error(text, self.secrets)
        return text if len(text) <= 60 else f"{text[:57]}..."

    def told(self, error: BaseException, path: KeyPath) -> str:
        """A foreign error's text, without secrets."""
        return self.scrubbed(super().told(error, path))

    def scrubbed(self, text: str) -> str:
        """A foreign text without secrets."""
        return scrubbed_error(text, self.secrets)

    def annotations(self, cls: type[Any]) -> Mapping[str, Any]:
        """As a file gives them."""
        return types_in_a_file(cls)

    def table(
        self,
        cls: type[Any],
        given: Any,
        path: KeyPath,
        *,
        also: Iterable[str] | None = (),
        fixed: Mapping[str, Any] | None = None,
    ) -> Any:
        """As `Structuring.table`, and remembered."""
        if isinstance(given, Mapping):
            self.tables.setdefault(path, []).append((cls, given))
        return super().table(cls, given, path, also=also, fixed=fixed)

    # Places and problems

    @property
    def mistakes(self) -> list[Problem]:
        """The problems that count, each once."""
        return [problem for problem in dict.fromkeys(self.problems) if problem.path not in self._left_out]

    def place(self, path: KeyPath) -> Place:
        """Where a key stands, or what is nearest around it."""
        return nearest(self.places, path, self.file)

    def lines(self) -> list[str]:
        """Every problem as one line, in the order of their places."""
        found = sorted(self.mistakes, key=lambda problem: (self.place(problem.path).order, problem.text))
        lines = []
        for problem in found:
            # Of an unknown key the name is said by the key already.
            text = problem.text.replace(f" {problem.path[-1]!r}:", ":", 1) if problem.unknown else problem.text
            lines.append(self.line_of(problem.path, text))
        return list(dict.fromkeys(lines))

    def line_of(self, path: KeyPath, text: str) -> str:
        """A mistake as errors show it: place, key, and what is wrong."""
        return f"{self.place(path)}: {dotted(path)}: {text}" if path else f"{self.place(path)}: {text}"


def whole_file(label: str) -> Place:
    """The place of what stands nowhere in particular."""
    return Place(layer="file", name=label, position=Position(1, 1))
