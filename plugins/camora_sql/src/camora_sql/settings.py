"""What can be set, as keywords of a provider or in the query of a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import attrs
from camora.errors import SettingsError
from camora.settings import Duration, mask_url, structure_settings
from camora.units import duration

__all__ = ["PREFIX", "SqlSettings", "in_folder", "naming", "split_url"]

PREFIX = "camora_"
"""How the names of all tables and indexes begin where the settings do not say otherwise."""


def _known(_: Any, attribute: Any, value: str) -> None:
    if value not in ("all", "full", "normal"):
        raise ValueError(f"{attribute.name} = {value!r}: must be 'all', 'full' or 'normal'")


def _not_negative(_: Any, attribute: Any, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} = {value!r}: must be 0 or more")


def _not_below_0(_: Any, attribute: Any, value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} = {value!r}: must be 0 or more")


def _positive(_: Any, attribute: Any, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} = {value!r}: must be more than 0")


def _plain_name(_: Any, attribute: Any, value: str) -> None:
    # It becomes a part of statements. The longest name behind it has 24 letters, and PostgreSQL's names have 63.
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,31}", value):
        raise ValueError(
            f"{attribute.name} = {value!r}: must be up to 32 small letters, digits and underscores, no digit first"
        )


def _at_least_two(_: Any, attribute: Any, value: int) -> None:
    if value < 2:
        raise ValueError(f"{attribute.name} = {value!r}: must be 2 or more: one settles while the other one claims")


@attrs.frozen(kw_only=True)
class SqlSettings:
    """Settings of the SQL broker and result backend; durations are seconds, or texts such as "10s".

    `synchronous` is about power failures only; the death of processes loses nothing either way. With "full" all that
    was dispatched survives one, at the price of a disk flush for each publication (those of one moment share it); the
    settlements of the last moments may be undone by it, and their jobs run again. With "all" settlements are flushed,
    too. With "normal" nothing is, and the dispatches of the last moments may be lost.

    `busy_timeout` is how long a step waits for other processes that are writing. `dedup_window` is how long the id of
    a finished job is remembered at least, so that publishing it again stores nothing.
    `max_records` is how many finished jobs have a record at most: workers delete the oldest beyond, in small steps.

    `prefix` begins the names of all tables; `schema` is where they are, of a server that has schemas.

    The rest is for servers. `pool_size` is how many connections a process has at most, beside those that keep leases
    and listen. `connect_timeout` is how long the making of one may take, `network_timeout` how long an answer may take:
    then it is given up, and made anew.
    """

    synchronous: str = attrs.field(default="full", validator=_known)
    busy_timeout: Duration = attrs.field(default=5.0, converter=duration, validator=_not_negative)
    dedup_window: Duration = attrs.field(default=3600.0, converter=duration, validator=_not_negative)
    max_records: int | None = attrs.field(
        default=None, converter=attrs.converters.optional(int), validator=attrs.validators.optional(_not_below_0)
    )
    prefix: str = attrs.field(default=PREFIX, validator=_plain_name)
    schema: str | None = attrs.field(default=None, validator=attrs.validators.optional(_plain_name))
    pool_size: int = attrs.field(default=4, converter=int, validator=_at_least_two)
    connect_timeout: Duration = attrs.field(default=10.0, converter=duration, validator=_positive)
    network_timeout: Duration = attrs.field(default=15.0, converter=duration, validator=_positive)


_NAMES = frozenset(field.name for field in attrs.fields(SqlSettings))


def split_url(url: str, settings: SqlSettings | None, *, keep_others: bool = False) -> tuple[str, SqlSettings]:
    """The URL without its query, and the settings with those of the query on top.

    With `keep_others` what is no setting stays in the URL: it is for the driver. Raises `SettingsError` for options
    that do not exist, stand there twice, or have no usable value.
    """
    bare, _, query = url.partition("?")
    given: dict[str, Any] = {}
    others: list[tuple[str, str]] = []
    where = mask_url(bare)
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in given:
            raise SettingsError(f"{where}: setting {name!r} is given twice")
        if keep_others and name not in _NAMES:
            _check_other(name, where)
            others.append((name, value))
        else:
            given[name] = value
    if others:
        bare = f"{bare}?{urlencode(others)}"
    base: Mapping[str, Any] = attrs.asdict(settings) if settings is not None else {}
    return bare, structure_settings(SqlSettings, {**base, **given}, where=where)


def _check_other(name: str, where: str) -> None:
    """A name that is nearly one of ours is a slip, and nothing for the driver."""
    # Imported for what is seldom there.
    import difflib

    if near := difflib.get_close_matches(name, sorted(_NAMES), n=1, cutoff=0.8):
        raise SettingsError(f"{where}: there is no setting {name!r}; did you mean {near[0]!r}?")


def naming(bare: str, settings: SqlSettings) -> str:
    """The URL of these very tables, for somebody to use elsewhere: secrets are masked, and what is by default left out.

    `bare` is the URL as `split_url` leaves it.
    """
    names = {"schema": settings.schema, "prefix": None if settings.prefix == PREFIX else settings.prefix}
    query = urlencode({name: value for name, value in names.items() if value is not None})
    joint = "&" if "?" in bare else "?"
    return mask_url(f"{bare}{joint}{query}" if query else bare)


def in_folder(url: str, folder: str | None) -> str:
    """The URL, its relative path made absolute from this folder on. Others, and what is no path, are left alone."""
    scheme, slashes, path = url.partition(":///")
    if folder is None or not slashes or not path or path.startswith(("/", ":", "?")):
        return url
    return f"{scheme}:///{os.path.join(folder, path)}"  # noqa: PTH118 -- the text of a URL, with a query behind it
