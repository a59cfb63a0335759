"""Templates into files."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import attrs

from camora.cli.new_plugin.naming import Names
from camora.errors import ConfigurationError

__all__ = ["write"]

_SUFFIX = ".tmpl"
_PACKAGE = "PACKAGE"


def write(names: Names, kind: str, path: Path) -> Path:
    """Write the distribution's files, and return its folder. Raises `ConfigurationError` where one is there already."""
    folder = path / names.distribution
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"{folder} exists already, and nothing is overwritten: remove it, or give another --path"
        )
    texts = {"kind": kind, **attrs.asdict(names)}
    templates = files(__package__) / "templates"
    try:
        for part in ("common", kind):
            for place, template in _below(templates / part):
                target = folder / place.replace(_PACKAGE, names.package).removesuffix(_SUFFIX)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(Template(template.read_text(encoding="utf-8")).substitute(texts), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error}") from None
    return folder


def _below(folder: Traversable, place: str = "") -> Iterator[tuple[str, Traversable]]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            yield from _below(item, f"{place}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            yield f"{place}{item.name}", item
