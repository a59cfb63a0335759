"""The merged layers, section by section, as a `Configuration`; mistakes are gathered, and none stops the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

import attrs

from camora.builtin.signing import SHORTEST_KEY
from camora.config.choices import Choice, Reference, Signing
from camora.config.locate import KeyPath
from camora.config.places import LAYERS
from camora.config.scheduling import read_schedules
from camora.config.sections import (
    BrokerSection,
    CodecSection,
    LimitsSection,
    OutboxSection,
    QueueSection,
    ResultsSection,
    RetrySection,
    SigningSection,
    TopSection,
    UseSection,
)
from camora.config.source import Source
from camora.errors import CamoraError, ConfigurationError, SettingsError
from camora.interfaces.pool import PoolSettings
from camora.options import TaskOptions, check_name
from camora.plugin_options import TaskOption
from camora.plugins import Catalog
from camora.provider import Provider
from camora.queue import Queue
from camora.settings import AppSettings, WorkerSettings
from camora.structuring import WRONG, settings_fields, unknown_key

__all__ = ["SECTIONS", "own_tables", "read_sections"]

SECTIONS = (
    *("broker", "results", "outbox", "codec", "signing", "retry", "limits", "worker", "queues", "pools", "middleware"),
    *("observers", "extensions", "tasks", "schedules", "plugins", "profiles"),
)
_OWN_TABLE = ("camora_middleware", "camora_observers")
"""Hooks whose providers' settings stand in a table of the provider's name."""


def own_tables(catalog: Catalog) -> dict[str, list[type[Any]]]:
    """The tables that plugins add, with the classes that their settings are read into."""
    found: dict[str, list[type[Any]]] = {}
    for hook in _OWN_TABLE:
        for provider in catalog.items[hook].values():
            if provider.settings is not None and provider.name not in SECTIONS:
                classes = found.setdefault(provider.name, [])
                if provider.settings not in classes:
                    classes.append(provider.settings)
    return found


def read_sections(source: Source, catalog: Catalog) -> dict[str, Any]:
    """What the sections say, as keyword arguments of `Configuration`; problems are noted in the source."""
    return _Reading(source, catalog).everything()


class _Reading:
    def __init__(self, source: Source, catalog: Catalog) -> None:
        self._source = source
        self._catalog = catalog
        self._own: dict[str, dict[type[Any], Any]] = {}

    def everything(self) -> dict[str, Any]:
        top = self._top()
        self._own = self._own_settings()
        results = self._section(ResultsSection, "results", also=self._backend_keys("results"))
        limits = self._section(LimitsSection, "limits")
        codec, result_codec = self._codecs()
        return {
            "app": top.app,
            "name": top.name,
            "broker": self._broker(),
            "results": self._results(results),
            "outbox": self._outbox(),
            "codec": codec,
            "result_codec": result_codec,
            "signing": self._signing(),
            "retry": self._retry(),
            "settings": self._settings(limits, results),
            "worker": self._section(WorkerSettings, "worker"),
            "queues": self._queues(),
            "pools": self._pools(),
            "middleware": self._used("middleware"),
            "observers": self._used("observers"),
            "extensions": self._extensions(),
            "task_options": self._tasks(),
            "schedules": tuple(read_schedules(self._source, self._catalog)),
        }

    # Helpers

    def _given(self, *path: str) -> Any:
        value: Any = self._source.data
        for key in path:
            value = value.get(key, {}) if isinstance(value, Mapping) else {}
        return value

    def _section(self, cls: type[Any], name: str, *, also: Any = ()) -> Any:
        """The section's object; one of defaults where it is wrong, so that reading can go on."""
        given = self._given(name)
        if given is WRONG:
            return cls()
        made = self._source.table(cls, given, (name,), also=also)
        return cls() if made is WRONG else made

    def _tables(self, name: str) -> dict[str, Any]:
        """The tables inside a table of names."""
        given = self._given(name)
        if not isinstance(given, Mapping):
            self._source.note((name,), f"expected a table, found {self._source.shown(given, (name,))}")
            return {}
        return dict(given)

    def _name(self, kind: str, name: str, path: KeyPath) -> None:
        try:
            check_name(kind, name)
        except ConfigurationError as error:
            self._source.note(path, str(error))

    def _shown(self, section: str, name: str) -> str:
        return self._source.shown(self._given(section, name), (section, name))

    def _provider(self, hook: str, name: Any, path: KeyPath) -> Provider[Any] | None:
        if not isinstance(name, str):
            return None  # noted while its section was read
        try:
            return self._catalog.provider(hook, name)
        except CamoraError as error:
            self._source.note(path, self._source.told(error, path))
            return None

    def _choice(
        self,
        provider: Provider[Any],
        given: Any,
        path: KeyPath,
        *,
        url: str | None = None,
        folder: str | None = None,
    ) -> Choice | None:
        """The provider with those of the section's keys that are its own. Unknown ones the section has noted."""
        settings = None
        if provider.settings is not None:
            settings = self._source.table(provider.settings, given, path, also=None)
            if settings is WRONG:
                return None
        return Choice(path=path, provider=provider, url=url, folder=folder, settings=settings)

    # Sections

    def _top(self) -> TopSection:
        known = {*SECTIONS, *own_tables(self._catalog), *settings_fields(TopSection)}
        for key, value in self._source.data.items():
            if key not in known:
                what = "section" if isinstance(value, (Mapping, list)) else "setting"
                problem = unknown_key((key,), known - {"profiles"}, what=what)
                if "did you mean" not in problem.text:
                    problem = attrs.evolve(problem, text=f"{problem.text}; did you forget a plugin?")
                self._source.problems.append(problem)
        made = self._source.table(TopSection, self._source.data, (), also=None)
        return TopSection() if made is WRONG else made

    def _own_settings(self) -> dict[str, dict[type[Any], Any]]:
        found: dict[str, dict[type[Any], Any]] = {}
        for name, classes in own_tables(self._catalog).items():
            given = self._given(name)
            if given is WRONG:
                continue
            found[name] = {}
            for index, cls in enumerate(classes):
                # Several plugins may share a table: each reads its own keys, and the first one notes unknown ones.
                others = {key for other in classes for key in settings_fields(other)} - {*settings_fields(cls)}
                if name in self._source.data or not _needs(cls):
                    also = others if index == 0 else None
                    found[name][cls] = self._source.table(cls, given, (name,), also=also)
        return found

    def _backend_keys(self, section: str) -> set[str] | None:
        """The keys that the plugin of the section's URL adds; None where that is not known."""
        provider = self._backend(section)
        if provider is None:
            given = self._given(section)
            return None if isinstance(given, Mapping) and "url" in given else set()
        return set() if provider.settings is None else set(settings_fields(provider.settings))

    def _backend(self, section: str) -> Provider[Any] | None:
        url = self._url(section)
        hook = "camora_result_backends" if section == "results" else "camora_brokers"
        try:
            return None if url is None else self._catalog.for_url(hook, url)
        except CamoraError as error:
            self._source.note((section, "url"), self._source.told(error, (section, "url")))
            return None

    def _url(self, section: str) -> str | None:
        given = self._given(section)
        if not isinstance(given, Mapping) or "url" not in given or given["url"] is WRONG:
            return None
        before = len(self._source.problems)
        url = self._source.text(given["url"], (section, "url"))
        if url is WRONG:
            del self._source.problems[before:]  # the section's own reading notes it
            return None
        if ":" not in url:
            path = (section, "url")
            shown = self._source.shown(url, path)
            self._source.note(path, f"expected a URL such as 'sqlite:///camora.db', found {shown}")
            return None
        return str(url)

    def _broker(self) -> Choice | None:
        self._section(BrokerSection, "broker", also=self._backend_keys("broker"))
        return self._with_url("broker")

    def _with_url(self, section: str) -> Choice | None:
        provider = self._backend(section)
        if provider is None:
            return None
        # From whatever folder a command is run: a file of jobs that moved with it would be another one each time.
        in_file = self._source.place((section, "url")).layer != "variable"
        return self._choice(
            provider,
            self._given(section),
            (section,),
            url=self._settled(section, provider),
            folder=str(self._source.folder) if in_file else None,
        )

    def _settled(self, section: str, provider: Provider[Any]) -> str | None:
        """The section's URL. Of a setting that is in it and beside it, the stronger layer's word stands.

        Within one layer nobody could see why one of them wins: that is a mistake.
        """
        url = self._url(section)
        given = self._given(section)
        if url is None or provider.settings is None or "?" not in url:
            return url
        bare, _, query = url.partition("?")
        of_url = LAYERS.index(self._source.place((section, "url")).layer)
        kept = []
        for part in query.split("&"):
            name = unquote_plus(part.partition("=")[0])
            if name in given and name in settings_fields(provider.settings):
                beside = LAYERS.index(self._source.place((section, name)).layer)
                if beside == of_url:
                    self._source.note((section, name), f"is in the url, too (?{name}=…): say it once")
                if beside > of_url:
                    continue
            if name in settings_fields(provider.settings):
                self._source.in_url.add((section, name))
            kept.append(part)
        return f"{bare}?{'&'.join(kept)}" if kept else bare

    def _results(self, section: ResultsSection) -> Choice | bool | None:
        choice = self._with_url("results")
        return choice if section.enabled else False

    def _outbox(self) -> Choice | None:
        if "outbox" not in self._source.data:
            return None
        self._section(OutboxSection, "outbox", also=self._backend_keys("outbox"))
        return self._with_url("outbox")

    def _codecs(self) -> tuple[Choice | None, Choice | None]:
        given = self._given("codec")
        use = given.get("use", "json") if isinstance(given, Mapping) else "json"
        provider = self._provider("camora_codecs", use, ("codec", "use"))
        also: Any = None
        if provider is not None:
            also = settings_fields(provider.settings) if provider.settings is not None else ()
        section = self._section(CodecSection, "codec", also=also)
        chosen = None if provider is None else self._choice(provider, given, ("codec",))
        other = self._provider("camora_codecs", section.result, ("codec", "result"))
        return chosen, None if other is None else Choice(path=("codec", "result"), provider=other)

    def _signing(self) -> Signing | None:
        if "signing" not in self._source.data:
            return None
        path: KeyPath = ("signing",)
        before = len(self._source.problems)
        section = self._section(SigningSection, "signing")
        given = self._given("signing")
        if not isinstance(given, Mapping):
            return None
        if "key" in given and "keys" in given:
            self._source.note((*path, "key"), "give key or keys, not both")
        elif "key" not in given and not given.get("keys"):
            self._source.note(path, "expected key, or keys: without one nothing can be signed")
        if len(self._source.problems) > before:
            return None
        keys = (*([] if section.key is None else [section.key]), *section.keys)
        if not keys:
            return None  # they are on another machine
        for index, key in enumerate(keys):
            self._check_key(key, (*path, "key") if section.key is not None else (*path, "keys", index))
        return Signing(path=path, keys=keys, accept_unsigned=section.accept_unsigned, max_age=section.max_age)

    def _check_key(self, key: str, path: KeyPath) -> None:
        length = len(key.encode())
        if length < SHORTEST_KEY:
            self._source.note(path, f"expected a key of at least {SHORTEST_KEY} bytes, found one of {length}")

    def _retry(self) -> Choice | None:
        if "retry" not in self._source.data:
            return None
        given = self._given("retry")
        use = given.get("use", "durable") if isinstance(given, Mapping) else "durable"
        provider = self._provider("camora_retry_policies", use, ("retry", "use"))
        if provider is None:
            self._section(RetrySection, "retry", also=None)
            return None
        fields = settings_fields(provider.settings) if provider.settings is not None else ()
        self._section(RetrySection, "retry", also=fields)
        return self._choice(provider, given, ("retry",)) if isinstance(given, Mapping) else None

    def _settings(self, limits: LimitsSection, results: ResultsSection) -> AppSettings:
        try:
            AppSettings(result_ttl=results.ttl)
        except SettingsError:
            self._source.note(("results", "ttl"), f"must be more than 0, found {self._shown('results', 'ttl')}")
            return AppSettings()
        given = {name: getattr(limits, name) for name in settings_fields(LimitsSection)}
        made = self._source.made(AppSettings, given, given, ("limits",))
        return AppSettings() if made is WRONG else attrs.evolve(made, result_ttl=results.ttl)

    def _queues(self) -> dict[str, Queue]:
        found = {}
        for name, given in self._tables("queues").items():
            path = ("queues", name)
            before = len(self._source.problems)
            self._name("queue", name, path)
            named = len(self._source.problems) == before
            queue = self._queue(name if named else "default", given, path)
            if named and queue is not WRONG:
                found[name] = queue
        return found

    def _queue(self, name: str, given: Any, path: KeyPath) -> Any:
        section = self._source.table(QueueSection, given, path, also=None)
        if section is WRONG:
            return WRONG
        provider = self._provider("camora_queue_kinds", section.kind, (*path, "kind"))
        if provider is None:
            return WRONG
        # The table's own name is the queue's.
        fields = settings_fields(QueueSection)
        settings = self._source.table(provider.settings or Queue, given, path, also=fields, fixed={"name": name})
        if settings is WRONG:
            return WRONG
        try:
            return provider.make(settings=settings)
        except Exception as error:  # noqa: BLE001 -- a stranger's factory
            return self._source.note(path, self._source.told(error, path))

    def _pools(self) -> dict[str, PoolSettings]:
        found = {}
        for name, given in self._tables("pools").items():
            path = ("pools", name)
            self._name("pool", name, path)
            settings = self._pool(given, path)
            if settings is not WRONG:
                found[name] = settings
        return found

    def _pool(self, given: Any, path: KeyPath) -> Any:
        kind = given.get("kind") if isinstance(given, Mapping) else None
        if not isinstance(kind, str):
            return self._source.table(PoolSettings, given, path)
        provider = self._provider("camora_pools", kind, (*path, "kind"))
        if provider is None:
            return self._source.table(PoolSettings, given, path, also=None)
        settings = self._source.table(provider.settings or PoolSettings, given, path)
        if settings is WRONG:
            return WRONG
        if settings.timeout is not None and settings.timeout <= 0:
            shown = self._source.shown(given["timeout"], (*path, "timeout"))
            return self._source.note((*path, "timeout"), f"must be more than 0, found {shown}")
        try:
            provider.make(settings=settings)  # a worker makes it once more; here it says what it refuses
        except Exception as error:  # noqa: BLE001 -- a stranger's pool
            return self._source.note(path, self._source.told(error, path))
        return settings

    def _tasks(self) -> dict[str, dict[str, Any]]:
        found = {}
        for pattern, given in self._tables("tasks").items():
            path = ("tasks", pattern)
            # The table's own name says which tasks are meant.
            offered = self._catalog.items["camora_task_options"]
            options = self._source.table(TaskOptions, given, path, also=offered, fixed={"name": None})
            owned = self._owned(given, path)
            if options is not WRONG:
                found[pattern] = {name: getattr(options, name) for name in given if name not in offered} | owned
        return found

    def _owned(self, given: Any, path: KeyPath) -> dict[str, Any]:
        """The options of plugins in a table of `[tasks]`."""
        offered = self._catalog.items["camora_task_options"]
        found = {}
        for name in given if isinstance(given, Mapping) else ():
            if name in offered:
                value = self._source.read(offered[name].annotation, given[name], (*path, name))
                found[name] = value if value is WRONG else self._checked(offered[name], value, (*path, name))
        return {name: value for name, value in found.items() if value is not WRONG}

    def _checked(self, option: TaskOption, value: Any, path: KeyPath) -> Any:
        try:
            return option.checked(value)
        except ValueError as error:
            return self._source.note(path, self._source.told(error, path))

    # Extensions

    def _extensions(self) -> dict[str, Any]:
        """The settings of every extension that has some: each is on, whether the file speaks of it or not."""
        offered = self._catalog.items["camora_extensions"]
        given = self._tables("extensions")
        having = {name: provider.settings for name, provider in offered.items() if provider.settings is not None}
        for name in given:
            if name not in offered:
                problem = unknown_key(("extensions", name), offered, what="extension")
                if "did you mean" not in problem.text:
                    problem = attrs.evolve(problem, text=f"{problem.text}; did you forget a plugin?")
                self._source.problems.append(problem)
            elif name not in having:
                self._source.note(("extensions", name), "this extension has no settings")
        found = {
            name: self._source.table(cls, given.get(name, {}), ("extensions", name))
            for name, cls in having.items()
            if name in given or not _needs(cls)
        }
        return {name: settings for name, settings in found.items() if settings is not WRONG}

    # Middleware and observers

    def _used(self, section: str) -> tuple[Choice | Reference, ...]:
        hook = f"camora_{section}"
        names = self._section(UseSection, section).use
        found: list[Choice | Reference] = []
        for index, name in enumerate(names):
            path: KeyPath = (section, "use", index)
            if name in names[:index]:
                self._source.note(path, f"{name!r} is named twice")
            elif name == "...":
                rest = [other for other in sorted(self._catalog.items[hook]) if other not in names]
                found += [choice for other in rest if (choice := self._named(hook, other, path))]
            elif name in self._catalog.items[hook]:
                choice = self._named(hook, name, path)
                found += [choice] if choice else []
            elif ":" in name:
                found.append(Reference(path=path, name=name))
            else:
                what = hook.removeprefix("camora_").rstrip("s")
                problem = unknown_key((section, name), self._catalog.items[hook], what=what)
                self._source.note(path, f'{problem.text}; your own is written "module:attribute"')
        return tuple(found)

    def _named(self, hook: str, name: str, path: KeyPath) -> Choice | None:
        provider = self._catalog.items[hook][name]
        if provider.settings is None:
            return Choice(path=path, provider=provider)
        settings = self._own.get(name, {}).get(provider.settings)
        if settings is None:
            settings = self._source.table(provider.settings, self._given(name), (name,), also=None)
        return None if settings is WRONG else Choice(path=path, provider=provider, settings=settings)


def _needs(cls: type[Any]) -> bool:
    """True when nothing can be made of it without being told something."""
    return any(field.default is attrs.NOTHING for field in settings_fields(cls).values())
