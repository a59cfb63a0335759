"""What a plugin's hooks return: a name, and how to make the thing when somebody uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs

__all__ = ["HOOK_API_VERSION", "MadeFrom", "Provider"]

HOOK_API_VERSION = 1
"""The version of hooks and interfaces. A plugin module may state the one it was built for as `CAMORA_API`."""

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class MadeFrom:
    """What a factory gets: the URL (or None), settings structured into the provider's class, and a name.

    `folder` is that of the settings file which the URL stands in: where a relative path in it begins. None: at the
    working folder.
    """

    url: str | None = None
    folder: str | None = None
    settings: Any = None
    name: str = ""


def _schemes(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class Provider(Generic[T]):
    """Offers one thing under a name.

    `factory(made_from)` is called when an app uses it, and only then imports client libraries; it does no I/O.
    `settings` is an attrs class that the keyword settings are structured into. `schemes` are the URL schemes it
    answers to (brokers and result backends).
    """

    name: str
    factory: Callable[[MadeFrom], T]
    settings: type[Any] | None = attrs.field(default=None, kw_only=True)
    schemes: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=_schemes)
    help: str = attrs.field(default="", kw_only=True)

    def make(self, url: str | None = None, settings: Any = None, *, folder: str | None = None) -> T:
        """Make the thing; `settings` is a mapping, or an object of the settings class, `folder` as in `MadeFrom`.

        Raises `SettingsError` for settings it does not have or cannot use.
        """
        from camora.settings import structure_settings

        if self.settings is None or isinstance(settings, self.settings):
            made = settings
        else:
            made = structure_settings(self.settings, settings or {}, where=self.name)
        return self.factory(MadeFrom(url=url, folder=folder, settings=made, name=self.name))
