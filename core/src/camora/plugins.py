"""Loading plugins: entry points in, a frozen catalog out.

pluggy carries the hooks; the loader is our own, because a plugin that does not import must not stop an app that does
not use it, and because the order of entry points is otherwise that of a directory listing.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import attrs
import pluggy

from camora import hookspecs
from camora.errors import PluginConflict, PluginLoadError, UnknownPlugin
from camora.plugin_options import TaskOption
from camora.provider import HOOK_API_VERSION, Provider
from camora.queue import Queue

__all__ = ["Catalog", "PluginInfo", "Source", "discover", "load", "local"]

GROUP = "camora"
LOCAL = "CAMORA_PLUGINS"
"""The environment variable that names plugins which are modules of the user's own, separated by commas."""
_HOOKS = tuple(name for name in hookspecs.__all__ if name.startswith("camora_"))


@attrs.frozen(kw_only=True)
class Source:
    """Where a plugin comes from; `load` imports and returns its module (or any object with hooks)."""

    name: str
    distribution: str
    version: str
    load: Any

    @property
    def label(self) -> str:
        """The plugin as errors name it."""
        return f"{self.name} ({self.distribution} {self.version})".replace(" )", ")")


@attrs.frozen(kw_only=True)
class PluginInfo:
    """One plugin as `camora plugins` lists it: `state` is `active`, `disabled` or `broken`.

    `api` is the version of hooks and interfaces it was built for; None where its module was not imported.
    """

    name: str
    distribution: str
    version: str
    state: str
    why: str = ""
    api: int | None = None
    provides: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Catalog:
    """All that the installed plugins offer, by hook and name. Immutable."""

    plugins: tuple[PluginInfo, ...]
    items: Mapping[str, Mapping[str, Any]]
    owners: Mapping[tuple[str, str], str]

    def provider(self, hook: str, name: str) -> Provider[Any]:
        """The provider of this name. Raises `UnknownPlugin`, or `PluginLoadError` if a broken plugin may have it."""
        found = self.items[hook].get(name)
        if found is None:
            raise self._unknown(hook, name, sorted(self.items[hook]))
        return found  # type: ignore[no-any-return]

    def for_url(self, hook: str, url: str) -> Provider[Any]:
        """The provider whose scheme this URL has; errors as `provider`."""
        scheme = url.partition(":")[0].lower()
        schemes = {scheme: item for item in self.items[hook].values() for scheme in item.schemes}
        # An exact scheme, else the part before a driver: `sqlite+driver`.
        found = schemes.get(scheme) or schemes.get(scheme.partition("+")[0])
        if found is None:
            raise self._unknown(hook, scheme, sorted(schemes), url_scheme=True)
        return found  # type: ignore[no-any-return]

    def _unknown(self, hook: str, name: str, known: Sequence[str], *, url_scheme: bool = False) -> Exception:
        kind = hook.removeprefix("camora_").replace("_", " ").rstrip("s")
        what = "the URL scheme" if url_scheme else f"a {kind} called"
        whose = f" for {kind}s" if url_scheme else ""
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else _install_hint(name)
        if url_scheme:
            known = [scheme for scheme in known if "+" not in scheme]  # variants of the others
        text = f"no plugin offers {what} {name!r}{whose}. Installed: {', '.join(known) or 'none'}.{hint}"
        broken = [info for info in self.plugins if info.state == "broken"]
        if broken:
            reasons = "; ".join(f"{info.name} ({info.distribution} {info.version}): {info.why}" for info in broken)
            return PluginLoadError(f"{text} These plugins are installed but broken: {reasons}")
        return UnknownPlugin(text)


_DISTRIBUTIONS = {
    "sqlite": "camora-sql",
    "postgresql": "camora-sql[postgresql]",
    "postgres": "camora-sql[postgresql]",
    "mysql": "camora-sql[mysql]",
    "mariadb": "camora-sql[mysql]",
    "redis": "camora-redis",
    "rediss": "camora-redis",
    "valkey": "camora-redis",
    "unix": "camora-redis",
    "amqp": "camora-amqp",
    "amqps": "camora-amqp",
    "servicebus": "camora-servicebus",
}
"""Where the schemes that people try first are to be had: names to install, not code to import."""


def _install_hint(name: str) -> str:
    wanted = _DISTRIBUTIONS.get(name.partition("+")[0])
    shown = f"'{wanted}'" if wanted and "[" in wanted else wanted
    return f" Try: pip install {shown}" if wanted else ""


def discover(environ: Mapping[str, str] | None = None) -> list[Source]:
    """The installed plugins, sorted by distribution and name, then those of `CAMORA_PLUGINS`. Imports none of them."""
    names = (os.environ if environ is None else environ).get(LOCAL, "")
    return [*_installed(), *(local(name.strip()) for name in names.split(",") if name.strip())]


def _installed() -> list[Source]:
    # Every distribution has a file of entry points: they are read anew only when something has been installed since.
    return list(_installed_in(tuple(map(_state, sys.path))))


def _state(folder: str) -> tuple[str, int, int]:
    """What changes when a distribution is added to a folder, or removed from it."""
    try:
        found = Path(folder).stat()
    except OSError:
        return folder, 0, 0
    return folder, found.st_ino, found.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _installed_in(_: tuple[tuple[str, int, int], ...], /) -> tuple[Source, ...]:
    found = {(source.distribution, source.name, value): source for source, value in map(_source, _points())}
    return tuple(found[key] for key in sorted(found))


def _points() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


def _source(point: EntryPoint) -> tuple[Source, str]:
    distribution, version = "unknown", ""
    if point.dist is not None:
        about = point.dist.metadata  # parsed whenever it is asked for
        distribution, version = about["Name"], about["Version"]
    return Source(name=point.name, distribution=distribution, version=version, load=point.load), point.value


def local(reference: str) -> Source:
    """A plugin that is just a module of the user's, by its import name; looked for in the working folder too."""

    def import_it() -> Any:
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        return importlib.import_module(reference)

    return Source(name=reference, distribution="local", version="", load=import_it)


def load(sources: Iterable[Source] | None = None, *, disable: Iterable[str] = (), strict: bool = True) -> Catalog:
    """Import the plugins, check them, and collect what they offer.

    Import errors of installed plugins are kept, and raised only when something is missing that the broken plugin may
    offer. Raises `PluginConflict` when two plugins, or two of their offers, have the same name or scheme;
    `PluginLoadError` for an unknown hook, a wrong result, another hook API version, or a local plugin that does not
    import. Without `strict` none of this is raised: such a plugin is listed as broken, and offers nothing.
    """
    found = _without_repeats(discover() if sources is None else list(sources))
    off = set(disable)
    asked = _manager()
    infos: list[PluginInfo] = []
    collected: dict[str, dict[str, Any]] = {hook: {} for hook in _HOOKS}
    owners: dict[tuple[str, str], str] = {}
    seen: dict[str, Source] = {}
    for source in found:
        if source.name in off or source.distribution in off:
            infos.append(_info(source, "disabled", "named in [plugins] disable"))
            continue
        try:
            _refuse_same_name(source, seen)
            module = _imported(source)
            offers = _offers(source, module, asked)
            _claim(source, offers, owners)
        except _NotImported as error:
            if strict and source.distribution == "local":
                raise PluginLoadError(
                    f"the local plugin {source.name!r} cannot be imported: {error}. It is named in [plugins] local or "
                    f"in {LOCAL}"
                ) from error.__cause__
            infos.append(_info(source, "broken", str(error)))
            continue
        except (PluginConflict, PluginLoadError) as error:
            if strict:
                raise
            infos.append(_info(source, "broken", str(error)))
            continue
        for hook, items in offers.items():
            collected[hook].update({item.name: item for item in items})
        provides = {hook: tuple(item.name for item in items) for hook, items in offers.items()}
        infos.append(_info(source, "active", api=_api(module), provides=provides))
    return Catalog(
        plugins=tuple(infos),
        items=MappingProxyType({hook: MappingProxyType(items) for hook, items in collected.items()}),
        owners=MappingProxyType(owners),
    )


class _NotImported(Exception):
    """A plugin's module does not import."""


def _imported(source: Source) -> Any:
    try:
        return source.load()
    except Exception as error:  # a stranger's module may fail in any way
        raise _NotImported(f"{type(error).__name__}: {error}") from error


def _info(source: Source, state: str, why: str = "", **more: Any) -> PluginInfo:
    return PluginInfo(
        name=source.name, distribution=source.distribution, version=source.version, state=state, why=why, **more
    )


def _without_repeats(sources: Sequence[Source]) -> list[Source]:
    """A local plugin may be named in the file and in the environment; that is one plugin."""
    seen: set[str] = set()
    kept = []
    for source in sources:
        if source.distribution == "local":
            if source.name in seen:
                continue
            seen.add(source.name)
        kept.append(source)
    return kept


def _refuse_same_name(source: Source, seen: dict[str, Source]) -> None:
    if source.name in seen:
        raise PluginConflict(
            f"two plugins are called {source.name!r}: one of {seen[source.name].distribution}, one of "
            f"{source.distribution}. Uninstall one, or disable one by its distribution's name in [plugins] disable"
        )
    seen[source.name] = source


def _api(module: Any) -> int:
    return getattr(module, "CAMORA_API", HOOK_API_VERSION)


def _manager() -> pluggy.PluginManager:
    """Knows the hooks, and no plugin."""
    manager = pluggy.PluginManager("camora")
    hooks = ModuleType("hooks")  # and nothing else of that module: each name of it would be looked at
    vars(hooks).update({hook: getattr(hookspecs, hook) for hook in _HOOKS})
    manager.add_hookspecs(hooks)
    return manager


def _offers(source: Source, module: Any, manager: pluggy.PluginManager) -> dict[str, Sequence[Any]]:
    """What the plugin's hooks answer, checked. Meanwhile the manager knows it, and no other: the answers are its."""
    if _api(module) != HOOK_API_VERSION:
        raise PluginLoadError(
            f"plugin {source.label} was built for hook API {_api(module)}; this camora has {HOOK_API_VERSION}. "
            f"Install a matching version of {source.distribution}"
        )
    _refuse_unknown_hooks(source, module)
    try:
        manager.register(module, name=source.name)
        return _answers(source, manager)
    except pluggy.PluginValidationError as error:
        raise PluginLoadError(f"plugin {source.label}: {error}") from None
    finally:
        if manager.is_registered(module):
            manager.unregister(module)


def _answers(source: Source, manager: pluggy.PluginManager) -> dict[str, Sequence[Any]]:
    offers: dict[str, Sequence[Any]] = {}
    for hook in _HOOKS:
        try:
            results = getattr(manager.hook, hook)()
        except Exception as error:
            raise PluginLoadError(f"plugin {source.label}: {hook} raised {type(error).__name__}: {error}") from error
        if results:
            offers[hook] = _checked(source, hook, results[0])
    return offers


def _refuse_unknown_hooks(source: Source, module: Any) -> None:
    for name in dir(module):
        if getattr(getattr(module, name, None), "camora_impl", None) and name not in _HOOKS:
            near = difflib.get_close_matches(name, _HOOKS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_HOOKS)}"
            raise PluginLoadError(f"plugin {source.label} implements an unknown hook {name!r}: {hint}")


def _checked(source: Source, hook: str, result: Any) -> Sequence[Any]:
    expected = hookspecs.EXPECTED.get(hook, Provider)
    if not isinstance(result, (list, tuple)):
        raise PluginLoadError(
            f"plugin {source.label}: {hook} returned {type(result).__name__}, expected a list of {expected.__name__}"
        )
    for item in result:
        if not isinstance(item, expected):
            raise PluginLoadError(
                f"plugin {source.label}: {hook} returned a list with {item!r}, expected {expected.__name__} objects"
            )
        if problem := _OWN_RULES.get(hook, _no_rule)(item):
            raise PluginLoadError(f"plugin {source.label}: {hook}: {problem}")
    return result


def _no_rule(_: Any) -> str:
    return ""


def _kind_problem(provider: Provider[Any]) -> str:
    cls = provider.settings
    if isinstance(cls, type) and issubclass(cls, Queue):
        return ""
    return f"the settings of {provider.name!r} are {cls!r}; give the class of such queues, derived from camora.Queue"


def _option_problem(option: TaskOption) -> str:
    # Imported where an option is offered: listing plugins is to cost little.
    from camora.options import DispatchOptions, TaskOptions

    # All fields: what the core keeps for itself is no name for others either.
    if option.name in {field.name for cls in (TaskOptions, DispatchOptions) for field in attrs.fields(cls)}:
        return f"the option {option.name!r} is the core's own; give yours another name"
    return ""


_OWN_RULES: Mapping[str, Callable[[Any], str]] = {
    "camora_queue_kinds": _kind_problem,
    "camora_task_options": _option_problem,
}
"""What else the items of a hook must be: each says what is wrong, or nothing."""


def _claim(source: Source, offers: Mapping[str, Sequence[Any]], owners: dict[tuple[str, str], str]) -> None:
    """Note who offers which name and scheme. Raises `PluginConflict`, and then notes nothing."""
    claimed: dict[tuple[str, str], str] = {}
    for hook, items in offers.items():
        for item in items:
            claims = [("name", item.name), *(("scheme", scheme) for scheme in getattr(item, "schemes", ()))]
            for kind, name in claims:
                key = (hook, f"{kind} {name}")
                owner = owners.get(key) or claimed.get(key)
                if owner is not None:
                    raise PluginConflict(
                        f"{hook}: {owner} and {source.label} both offer the {kind} {name!r}. "
                        "Uninstall one, or name one in [plugins] disable"
                    )
                claimed[key] = source.label
    owners.update(claimed)
