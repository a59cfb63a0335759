"""Examining one plugin strictly, as its author wants it: all findings, each in words."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import sys
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from types import FrameType
from typing import Any

import attrs

from camora import plugins
from camora.errors import CamoraError, ConfigurationError, UnknownPlugin
from camora.interfaces import (
    Broker,
    Capabilities,
    Codec,
    Extension,
    Injector,
    Middleware,
    Observer,
    Pool,
    ResultBackend,
    RetryPolicyLike,
    ScheduleStore,
    Trigger,
    TypeSupport,
)
from camora.plugin_options import TaskOption
from camora.plugins import Source
from camora.provider import Provider
from camora.queue import Queue

__all__ = ["Finding", "check", "described_fields"]

MADE: dict[str, type[Any]] = {
    "camora_brokers": Broker,
    "camora_codecs": Codec,
    "camora_extensions": Extension,
    "camora_injectors": Injector,
    "camora_middleware": Middleware,
    "camora_observers": Observer,
    "camora_pools": Pool,
    "camora_queue_kinds": Queue,
    "camora_result_backends": ResultBackend,
    "camora_retry_policies": RetryPolicyLike,
    "camora_schedule_stores": ScheduleStore,
    "camora_triggers": Trigger,
    "camora_types": TypeSupport,
}
"""What the providers of each hook make."""

_PASSWORD = "hunter2"  # noqa: S105 -- nobody's
_TOUCHING = frozenset(
    {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "sqlite3.connect"}
    | {"subprocess.Popen", "os.posix_spawn", "os.fork", "os.system"}
    | {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "tempfile.mkstemp", "tempfile.mkdtemp"}
)


@attrs.frozen(kw_only=True)
class Finding:
    """Something that is wrong with a plugin; a `note` is only something that could not be looked at."""

    plugin: str
    text: str
    note: bool = False


def check(name: str | None = None, *, sources: Iterable[Source] | None = None, url: str | None = None) -> list[Finding]:
    """Examine one plugin, or all that are installed or local, and return all that was found.

    `name` is a plugin's or a distribution's. `url` is one to make brokers and result backends from; they are made,
    never opened. Raises `UnknownPlugin` for a name that no plugin has.
    """
    found = list(plugins.discover() if sources is None else sources)
    asked = [source for source in found if name in (None, source.name, source.distribution)]
    if not asked:
        known = ", ".join(source.name for source in found)
        raise UnknownPlugin(f"no plugin is called {name!r}. Installed: {known or 'none'}")
    findings: list[Finding] = []
    states = {info.name: info for info in plugins.load(found, strict=False).plugins}
    for source in asked:
        info = states[source.name]
        findings += _requirement(source)
        if info.state == "broken":
            findings.append(Finding(plugin=source.name, text=info.why))
            continue
        # By itself: what others offer under the same names has been looked at above.
        for hook, items in plugins.load([source]).items.items():
            for item in items.values():
                if isinstance(item, Provider):
                    findings += _provider(source, hook, item, url)
                elif isinstance(item, TaskOption):
                    findings += _task_option(source, item)
    return findings


def _requirement(source: Source) -> Iterator[Finding]:
    if source.distribution in ("local", "camora"):
        return
    try:
        lines = requires(source.distribution) or []
    except PackageNotFoundError:
        yield Finding(plugin=source.name, text=f"{source.distribution} is not installed as a distribution")
        return
    named = (re.match(r"camora(?:\[[^]]*\])?(?![\w.-])\s*\(?([^;)]*)", line) for line in lines)
    ranges = [found[1].strip() for found in named if found]
    if not ranges:
        yield Finding(plugin=source.name, text=f'{source.distribution} does not require camora: add "camora>=0.1,<0.2"')
    elif "<" not in ranges[0] and "~=" not in ranges[0] and "==" not in ranges[0]:
        yield Finding(
            plugin=source.name,
            text=f"{source.distribution} requires camora{ranges[0] or ' of any version'}: say up to which version it "
            'is known to work, as in "camora>=0.1,<0.2"',
        )


def _task_option(source: Source, option: TaskOption) -> Iterator[Finding]:
    where = f"camora_task_options, {option.name!r}"
    if not option.help:
        yield Finding(plugin=source.name, text=f"{where}: has no help, which editors show beside it")
    if option.annotation is Any:
        yield Finding(plugin=source.name, text=f"{where}: has no type of its own, so no schema can say it", note=True)


def _provider(source: Source, hook: str, provider: Provider[Any], url: str | None) -> Iterator[Finding]:
    where = f"{hook}, {provider.name!r}"
    if not provider.help:
        yield Finding(plugin=source.name, text=f"{where}: has no help, the line that lists show beside its name")
    for problem, note in _settings_problems(provider.settings):
        yield Finding(plugin=source.name, text=f"{where}: {problem}", note=note)
    if hook in ("camora_brokers", "camora_result_backends") and not provider.schemes:
        yield Finding(plugin=source.name, text=f"{where}: no URL leads to it: give it a scheme, Provider(schemes=…)")
    if hook not in MADE:
        return
    made: list[Any] = []
    with _touching() as touched:
        yield from _making(source, hook, provider, url, made)
    for event in touched:
        yield Finding(
            plugin=source.name, text=f"{where}: making it does I/O ({event}); do it in open(), never in the factory"
        )
    for thing in made:
        for problem in _thing_problems(hook, provider, thing):
            yield Finding(plugin=source.name, text=f"{where}: {problem}")


def _making(source: Source, hook: str, provider: Provider[Any], url: str | None, made: list[Any]) -> Iterator[Finding]:
    """Make it, into `made`; from the given URL if it is one of its own, else from likely ones."""
    where = f"{hook}, {provider.name!r}"
    given = {"camora_pools": {"kind": provider.name}, "camora_queue_kinds": {"name": "check"}}
    settings = given.get(hook, {})
    error: Exception | None = None
    for candidate in _urls(provider, url):
        try:
            made.append(provider.make(candidate, settings))
        except CamoraError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 -- a stranger's factory
            yield Finding(plugin=source.name, text=f"{where}: making it raised {type(raised).__name__}: {raised}")
            return
        else:
            return
    if isinstance(error, ConfigurationError):
        hint = "; give --url" if provider.schemes else ""
        yield Finding(plugin=source.name, text=f"{where}: not made, it wants to be told more: {error}{hint}", note=True)
    else:
        yield Finding(plugin=source.name, text=f"{where}: making it raised {type(error).__name__}: {error}")


def _urls(provider: Provider[Any], url: str | None) -> list[str | None]:
    if not provider.schemes:
        return [None]
    if url is not None and url.partition(":")[0] in provider.schemes:
        return [url]
    scheme = provider.schemes[0]
    return [f"{scheme}://user:{_PASSWORD}@localhost/check", f"{scheme}:///check", f"{scheme}://"]


def _thing_problems(hook: str, provider: Provider[Any], thing: Any) -> Iterator[str]:
    expected = MADE[hook]
    if not isinstance(thing, expected):
        yield f"makes a {type(thing).__name__}, which is no {expected.__name__}"
        return
    if _PASSWORD in repr(thing):
        yield "its repr shows the password of its URL: use camora.settings.mask_url"
    if isinstance(thing, Broker):
        if not isinstance(getattr(thing, "capabilities", None), Capabilities):
            yield "declares no capabilities: set `capabilities = Capabilities(…)` on the class"
        elif thing.twin().capabilities != thing.capabilities:
            yield "its twin() declares other capabilities"
    for attribute in ("name",) if isinstance(thing, Codec) else ("kind",) if isinstance(thing, Pool) else ():
        value = getattr(thing, attribute, None)
        if value != provider.name:
            yield f"its {attribute} is {value!r}, and it is offered as {provider.name!r}"


def _settings_problems(cls: type[Any] | None) -> Iterator[tuple[str, bool]]:
    """Each problem, and whether it is only a note."""
    if cls is None:
        return
    if not attrs.has(cls):
        yield (
            f"its settings, {cls.__qualname__}, are no attrs class: decorate it with @attrs.frozen(kw_only=True)",
            False,
        )
        return
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        yield f"an annotation of {cls.__qualname__} cannot be resolved: {error}", False
        return
    described = described_fields(cls)
    for field in attrs.fields(cls):
        if hints.get(field.name, Any) is Any:
            yield f"setting {field.name!r} of {cls.__qualname__} has no type of its own, so no schema can say it", True
        if field.name not in described:
            hint = f"say in its docstring what `{field.name}` is"
            yield f"setting {field.name!r} of {cls.__qualname__} is not described: {hint}", False


def described_fields(cls: type[Any]) -> Mapping[str, str]:
    """The fields of a settings class that its docstrings explain, each with the text that does so.

    A field is explained by a docstring under it, or where the class's docstring speaks of it by its name.
    """
    texts: dict[str, str] = {}
    for kind in reversed(cls.__mro__):
        text = kind.__dict__.get("__doc__") or ""
        texts.update(dict.fromkeys(re.findall(r"\w+", text), inspect.cleandoc(text)))
        texts.update(_docstrings_below(kind))
    return {field.name: texts[field.name] for field in attrs.fields(cls) if field.name in texts}


def _docstrings_below(kind: type[Any]) -> dict[str, str]:
    """Docstrings that stand under fields; none where the source is not to be had."""
    try:
        [parsed] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    found = {}
    body = parsed.body if isinstance(parsed, ast.ClassDef) else []
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[field.target.id] = inspect.cleandoc(text.value)
    return found


class _Watch:
    """Notes what touches the network, processes or the disk while it is switched on."""

    def __init__(self) -> None:
        self.seen: list[str] | None = None
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if self.seen is None or (event == "socket.bind" and _importing()):
            return  # HTTP libraries find out so whether there is IPv6; it reaches nobody
        if event in _TOUCHING or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")):
            self.seen.append(f"{event} {args[0]!r}" if args else event)


def _importing() -> bool:
    """Whether this is in the midst of an import."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "_load_unlocked":
        frame = frame.f_back
    return frame is not None


@functools.cache
def _watch() -> _Watch:
    """One for the process, which keeps an audit hook for as long as it lives."""
    return _Watch()


@contextmanager
def _touching() -> Iterator[list[str]]:
    watch = _watch()
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # importing a client library is no I/O of its own
    seen: list[str] = []
    watch.seen = seen
    try:
        yield seen
    finally:
        watch.seen = None
        sys.dont_write_bytecode = bytecode
