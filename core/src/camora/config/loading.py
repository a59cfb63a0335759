"""From a file and the environment to a `Configuration`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camora import plugins
from camora.config.configuration import Configuration
from camora.config.files import find, folder_of, read_file, shown_path
from camora.config.layers import Layer, over
from camora.config.places import Place
from camora.config.reading import read_sections
from camora.config.sections import PluginsSection
from camora.config.source import Source, whole_file
from camora.config.variables import from_variables
from camora.errors import ConfigurationError, SettingsError
from camora.plugins import Catalog
from camora.structuring import WRONG, unknown_key

__all__ = ["catalog_near", "file_of", "profiles_of", "read", "read_mapping"]

_PROFILE = "CAMORA_PROFILE"


def read(
    path: str | Path | None = None,
    *,
    profile: str | None = None,
    environ: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
    ignore_missing: bool = False,
) -> Configuration:
    """Settings from a file, a profile, and the environment.

    The file is `path`, else the one that `find` finds. Later ones win: the file,
    `[profiles.NAME]` of `profile` (else of `CAMORA_PROFILE`), `CAMORA_…` variables of `environ` (default:
    `os.environ`). `catalog` holds the plugins; by default those that are installed, `[plugins]` considered. With
    `ignore_missing`, secrets and `${…}` that are not set are no mistake, and nothing is made of them.

    Raises `SettingsError` with every mistake, in the order of their lines.
    """
    variables = os.environ if environ is None else environ
    file = file_of(path, variables)
    return _read(
        read_file(file),
        file,
        whole_file(shown_path(file)),
        variables,
        profile=profile,
        given=catalog,
        ignore_missing=ignore_missing,
    )


def read_mapping(
    data: Mapping[str, Any],
    *,
    name: str,
    folder: str | Path,
    environ: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
) -> Configuration:
    """As `read`, of settings that are plain data in some other program's configuration, and no file.

    Errors call them `name`; relative paths and modules are looked up from `folder` on. Profile, variables and `catalog`
    are those of `read`.
    """
    variables = os.environ if environ is None else environ
    return _read(
        Layer(_plain(data)),
        Path(folder) / name,
        Place(layer="file", name=name),
        variables,
        profile=None,
        given=catalog,
        ignore_missing=False,
    )


def _plain(value: Any) -> Any:
    """As a TOML file would give it: tables are dicts, arrays are lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _read(
    layer: Layer,
    file: Path,
    top: Place,
    variables: Mapping[str, str],
    *,
    profile: str | None,
    given: Catalog | None,
    ignore_missing: bool,
) -> Configuration:
    name = profile or variables.get(_PROFILE) or None
    problems: list[str] = []
    if name is not None:
        layer, problems = _with_profile(layer, name, place=_who_asked(profile, name))
    layer = Layer({key: value for key, value in layer.data.items() if key != "profiles"}, layer.places)
    overrides, wrong_names = from_variables(variables, layer.data)
    problems += [f"{place}: {text}" for place, text in wrong_names]
    source = Source(
        over(layer, overrides),
        file=top,
        folder=Path(folder_of(file)),
        environ=variables,
        ignore_missing=ignore_missing,
    )
    found = given or _catalog(source, variables, file)
    if given is not None:
        _plugins(source)
    sections = read_sections(source, found)
    problems = [*source.lines(), *problems]
    if problems:
        raise SettingsError("\n".join(problems), problems=problems)
    return Configuration(path=file, profile=name, catalog=found, source=source, **sections)


def profiles_of(path: Path) -> list[str]:
    """The names of the file's profiles."""
    given = read_file(path).data.get("profiles", {})
    return list(given) if isinstance(given, dict) else []


def file_of(path: str | Path | None, environ: Mapping[str, str] | None = None) -> Path:
    """The file that is meant: `path`, else what `find` finds; a folder stands for the nearest file upwards from it.

    Raises `SettingsError` where there is none.
    """
    given = find(environ=environ) if path is None else Path(path)
    if given is None:
        raise SettingsError(
            f"no camora.toml, nor pyproject.toml with [tool.camora], in {Path.cwd()} or above it: "
            "camora init writes one"
        )
    if not given.is_dir():
        return given
    inside = find(given)
    if inside is None:
        raise SettingsError(f"no camora.toml in {given} or above it: camora init writes one")
    return inside


def _who_asked(profile: str | None, name: str) -> str:
    return f"profile {name!r}" if profile else f"{_PROFILE}: profile {name!r}"


def _with_profile(layer: Layer, name: str, *, place: str) -> tuple[Layer, list[str]]:
    profiles = layer.data.get("profiles", {})
    known: list[str] = list(profiles) if isinstance(profiles, dict) else []
    if name not in known:
        text = unknown_key((name,), known, what="profile").text
        hint = text.partition(": ")[2]
        return layer, [f"{place}: is not in the file: {hint}"]
    if not isinstance(profiles[name], dict):
        at: Any = layer.places[("profiles", name)]
        return layer, [f"{at}: profiles.{name}: expected a table, found {type(profiles[name]).__name__}"]
    return over(layer, layer.below("profiles", name).of("profile")), []


def _plugins(source: Source) -> PluginsSection:
    given = source.data.get("plugins", {})
    section = PluginsSection() if given is WRONG else source.table(PluginsSection, given, ("plugins",))
    return PluginsSection() if section is WRONG else section


def _catalog(source: Source, environ: Mapping[str, str], file: Path) -> Catalog:
    section = _plugins(source)
    try:
        return _loaded(section, environ, file)
    except ConfigurationError as error:
        source.note(("plugins",), source.told(error, ("plugins",)))
        return _loaded(section, environ, file, strict=False)


def _loaded(section: PluginsSection, environ: Mapping[str, str], file: Path, *, strict: bool = True) -> Catalog:
    if section.local:
        folder = folder_of(file)
        if folder not in sys.path:
            sys.path.insert(0, folder)  # the user's modules lie beside the file
    sources = [*plugins.discover(environ), *map(plugins.local, section.local)]
    return plugins.load(sources, disable=(*section.disable, *section.disabled), strict=strict)


def catalog_near(path: str | Path | None = None) -> Catalog:
    """The plugins that are installed, and those that `[plugins]` of the file (see `read`) names, if there is one.

    Mistakes are passed over: whoever asks may want to mend them.
    """
    try:
        file = file_of(path)
        layer = read_file(file)
    except SettingsError:
        if path is not None:
            raise
        return plugins.load(strict=False)
    source = Source(
        Layer({"plugins": layer.data.get("plugins", {})}),
        file=whole_file(shown_path(file)),
        folder=Path(folder_of(file)),
        environ=os.environ,
        ignore_missing=True,
    )
    return _loaded(_plugins(source), os.environ, file, strict=False)
