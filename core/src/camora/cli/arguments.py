"""Task names and arguments as they are written on a command line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_type_hints

from camora.errors import ConfigurationError

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.task import AnyTask

__all__ = ["ARGUMENTS", "known_task", "read_arguments", "read_value"]

ARGUMENTS = """name=value for each argument, where value is JSON, or else text: x=1 to=ada@example.org tags='["new"]'.
What has no name goes by position. A single JSON object is all arguments by name, a single JSON list all by position."""


def known_task(app: Camora, name: str, *, unchecked: bool) -> AnyTask | None:
    """The app's task of this name; None for one that it does not know, if `unchecked`. Raises `ConfigurationError`."""
    known = app.tasks.get(name)
    if known is None and not unchecked:
        names = sorted(app.tasks.by_name)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It knows {', '.join(names) or 'none'}."
        raise ConfigurationError(f"the app has no task {name!r}. {hint} --unchecked dispatches it all the same")
    return known


def read_arguments(given: Sequence[str], task: AnyTask | None) -> tuple[list[Any], dict[str, Any]]:
    """By position and by name. Raises `ConfigurationError`."""
    if len(given) == 1 and given[0][:1] in ("{", "["):
        whole = _json(given[0])
        if isinstance(whole, dict):
            return [], whole
        if isinstance(whole, list):
            return whole, {}
        raise ConfigurationError(f"{given[0]!r}: begins like JSON and is none; quote it for the shell")
    texts = _texts(task)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = value if name in texts else _json(value)
        else:
            args.append(_json(text))
    return args, kwargs


def read_value(text: str) -> Any:
    """JSON, or else the text itself."""
    return _json(text)


def _texts(task: AnyTask | None) -> set[str]:
    """The parameters that are texts: what is given for them is taken as it is, `007` and `true` included."""
    try:
        return {name for name, kind in get_type_hints(task.function).items() if kind is str} if task else set()
    except Exception:  # noqa: BLE001 -- an annotation that cannot be read is told by the dispatch itself
        return set()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
