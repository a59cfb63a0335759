"""Loading plugins: entry points in, a frozen catalog out.

pluggy carries the hooks; the loader is our own, because a plugin that does not import must not stop an app that does
not use it, and because the order of entry points is otherwise that of a directory listing.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import attrs
import pluggy

from camora import hookspecs
from camora.errors import PluginConflict, PluginLoadError, UnknownPlugin
from camora.provider import HOOK_API_VERSION, Provider

__all__ = ["Catalog", "PluginInfo", "Source", "load"]

GROUP = "camora"
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
    """One plugin as `camora plugins` lists it: `state` is `active`, `disabled` or `broken`."""

    name: str
    distribution: str
    version: str
    state: str
    why: str = ""
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
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else _install_hint(name)
        text = f"no plugin offers {what} {name!r} for {kind}s. Installed: {', '.join(known) or 'none'}.{hint}"
        broken = [info for info in self.plugins if info.state == "broken"]
        if broken:
            reasons = "; ".join(f"{info.name} ({info.distribution} {info.version}): {info.why}" for info in broken)
            return PluginLoadError(f"{text} These plugins are installed but broken: {reasons}")
        return UnknownPlugin(text)


_DISTRIBUTIONS = {
    "sqlite": "camora-sql",
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
    return f" Try: pip install {wanted}" if wanted else ""


def discover() -> list[Source]:
    """The installed plugins, sorted by distribution and name. Imports none of them."""
    points = sorted(entry_points(group=GROUP), key=lambda point: (_owner(point), point.name, point.value))
    unique = {(_owner(point), point.name, point.value): point for point in points}
    return [
        Source(name=point.name, distribution=_owner(point), version=_version(point), load=point.load)
        for point in unique.values()
    ]


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"


def _version(point: EntryPoint) -> str:
    return point.dist.version if point.dist is not None else ""


def local(reference: str) -> Source:
    """A plugin that is just a module of the user's, by its import name."""
    return Source(name=reference, distribution="local", version="", load=lambda: importlib.import_module(reference))


def load(sources: Iterable[Source] | None = None, *, disable: Iterable[str] = ()) -> Catalog:
    """Import the plugins, check them, and collect what they offer.

    Import errors are kept, and raised only when something is missing that the broken plugin may offer. Raises
    `PluginConflict` when two plugins, or two of their offers, have the same name or scheme; `PluginLoadError` for an
    unknown hook, a wrong result, or another hook API version.
    """
    found = discover() if sources is None else list(sources)
    _refuse_same_names(found)
    off = set(disable)
    infos: list[PluginInfo] = []
    collected: dict[str, dict[str, Any]] = {hook: {} for hook in _HOOKS}
    owners: dict[tuple[str, str], str] = {}
    for source in found:
        if source.name in off or source.distribution in off:
            infos.append(_info(source, "disabled", "named in [plugins] disable"))
            continue
        try:
            module = source.load()
        except Exception as error:  # noqa: BLE001 -- a stranger's module may fail in any way
            infos.append(_info(source, "broken", f"{type(error).__name__}: {error}"))
            continue
        infos.append(_info(source, "active", provides=_register(source, module, collected, owners)))
    return Catalog(
        plugins=tuple(infos),
        items=MappingProxyType({hook: MappingProxyType(items) for hook, items in collected.items()}),
        owners=MappingProxyType(owners),
    )


def _info(
    source: Source, state: str, why: str = "", provides: Mapping[str, tuple[str, ...]] | None = None
) -> PluginInfo:
    return PluginInfo(
        name=source.name,
        distribution=source.distribution,
        version=source.version,
        state=state,
        why=why,
        provides=provides or {},
    )


def _refuse_same_names(sources: Sequence[Source]) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        if source.name in seen:
            raise PluginConflict(
                f"two plugins are called {source.name!r}: one of {seen[source.name].distribution}, one of "
                f"{source.distribution}. Uninstall one, or disable one by its distribution's name in [plugins] disable"
            )
        seen[source.name] = source


def _register(
    source: Source,
    module: Any,
    collected: dict[str, dict[str, Any]],
    owners: dict[tuple[str, str], str],
) -> dict[str, tuple[str, ...]]:
    version = getattr(module, "CAMORA_API", HOOK_API_VERSION)
    if version != HOOK_API_VERSION:
        raise PluginLoadError(
            f"plugin {source.label} was built for hook API {version}; this camora has {HOOK_API_VERSION}. "
            f"Install a matching version of {source.distribution}"
        )
    _refuse_unknown_hooks(source, module)
    # A manager of its own, so that results can be told apart by plugin.
    manager = pluggy.PluginManager("camora")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name=source.name)
    except pluggy.PluginValidationError as error:
        raise PluginLoadError(f"plugin {source.label}: {error}") from None
    provides: dict[str, tuple[str, ...]] = {}
    for hook in _HOOKS:
        results = getattr(manager.hook, hook)()
        if results:
            items = _checked(source, hook, results[0])
            for item in items:
                _add(source, hook, item, collected[hook], owners)
            provides[hook] = tuple(item.name for item in items)
    return provides


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
    return result


def _add(source: Source, hook: str, item: Any, items: dict[str, Any], owners: dict[tuple[str, str], str]) -> None:
    claims = [("name", item.name), *(("scheme", scheme) for scheme in getattr(item, "schemes", ()))]
    for kind, name in claims:
        key = (hook, f"{kind} {name}")
        if key in owners:
            raise PluginConflict(
                f"{hook}: {owners[key]} and {source.label} both offer the {kind} {name!r}. "
                "Uninstall one, or name one in [plugins] disable"
            )
        owners[key] = source.label
    items[item.name] = item
