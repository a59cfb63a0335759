"""Settings as TOML text, and as nested data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from camora.config.effective import Setting
from camora.config.locate import KeyPath
from camora.config.places import dotted

__all__ = ["as_data", "as_toml"]

_COLUMN = 60
"""Comments stand no further to the right than this, where the line allows it."""


def as_toml(settings: Iterable[Setting], *, origins: bool = False) -> str:
    """A text that a `camora.toml` could consist of; with `origins`, a comment says where each value comes from.

    What is not set is left out, as TOML has no word for it.
    """
    blocks = []
    set_ones = [setting for setting in settings if setting.value is not None]
    for table, group in groupby(set_ones, key=lambda setting: setting.path[:-1]):
        lines = [_header(table)] if table else []
        blocks.append("\n".join([*lines, *_pairs(list(group), origins)]))
    return "\n\n".join(blocks) + "\n"


def _header(table: KeyPath) -> str:
    name = dotted(tuple(part for part in table if isinstance(part, str)))
    return f"[[{name}]]" if isinstance(table[-1], int) else f"[{name}]"


def _pairs(settings: list[Setting], origins: bool) -> Iterator[str]:
    texts = [f"{dotted(setting.path[-1:])} = {_value(setting.value)}" for setting in settings]
    width = min(_COLUMN, max(map(len, texts)))
    for setting, text in zip(settings, texts, strict=True):
        yield f"{text:<{width}}  # {setting.origin}" if origins else text


def _value(value: Any) -> str:
    import tomlkit

    if isinstance(value, dict):
        # An inline table, whatever tomlkit would choose.
        return f"{{{', '.join(f'{dotted((key,))} = {_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        value = value.replace("${", "$${")  # what stands there, not a variable
    text: str = tomlkit.item(value).as_string()
    return text


def as_data(settings: Iterable[Setting]) -> dict[str, Any]:
    """The same as nested dictionaries and lists; what is not set is None."""
    data: dict[str, Any] = {}
    for setting in settings:
        table: Any = data
        for part, following in zip(setting.path, setting.path[1:], strict=False):
            table = _entered(table, part, [] if isinstance(following, int) else {})
        table[setting.path[-1]] = setting.value
    return data


def _entered(table: Any, part: str | int, empty: Any) -> Any:
    if isinstance(part, str):
        return table.setdefault(part, empty)
    while len(table) <= part:
        table.append({})
    return table[part]
