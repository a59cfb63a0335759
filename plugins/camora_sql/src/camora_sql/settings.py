"""What can be set, as keywords of a provider or in the query of a URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import attrs
from camora.errors import SettingsError
from camora.settings import Duration, mask_url, structure_settings
from camora.units import duration

__all__ = ["SqlSettings", "in_folder", "split_url"]


def _known(_: Any, attribute: Any, value: str) -> None:
    if value not in ("all", "full", "normal"):
        raise ValueError(f"{attribute.name} = {value!r}: must be 'all', 'full' or 'normal'")


def _not_negative(_: Any, attribute: Any, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} = {value!r}: must be 0 or more")


@attrs.frozen(kw_only=True)
class SqlSettings:
    """Settings of the SQL broker and result backend; durations are seconds, or texts such as "10s".

    `synchronous` is about power failures only; the death of processes loses nothing either way. With "full" all that
    was dispatched survives one, at the price of a disk flush for each publication (those of one moment share it); the
    settlements of the last moments may be undone by it, and their jobs run again. With "all" settlements are flushed,
    too. With "normal" nothing is, and the dispatches of the last moments may be lost.

    `busy_timeout` is how long a step waits for other processes that are writing. `dedup_window` is how long the id of
    a finished job is remembered at least, so that publishing it again stores nothing.
    """

    synchronous: str = attrs.field(default="full", validator=_known)
    busy_timeout: Duration = attrs.field(default=5.0, converter=duration, validator=_not_negative)
    dedup_window: Duration = attrs.field(default=3600.0, converter=duration, validator=_not_negative)


def split_url(url: str, settings: SqlSettings | None) -> tuple[str, SqlSettings]:
    """The URL without its query, and the settings with those of the query on top.

    Raises `SettingsError` for options that do not exist, stand there twice, or have no usable value.
    """
    bare, _, query = url.partition("?")
    given: dict[str, Any] = {}
    where = mask_url(bare)
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in given:
            raise SettingsError(f"{where}: setting {name!r} is given twice")
        given[name] = value
    base: Mapping[str, Any] = attrs.asdict(settings) if settings is not None else {}
    return bare, structure_settings(SqlSettings, {**base, **given}, where=where)


def in_folder(url: str, folder: str | None) -> str:
    """The URL, its relative path made absolute from this folder on. Others, and what is no path, are left alone."""
    scheme, slashes, path = url.partition(":///")
    if folder is None or not slashes or not path or path.startswith(("/", ":", "?")):
        return url
    return f"{scheme}:///{os.path.join(folder, path)}"  # noqa: PTH118 -- the text of a URL, with a query behind it
