"""Triggers as plain data, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from camora.errors import ConfigurationError
from camora.interfaces.schedule import Trigger
from camora.plugins import Catalog

__all__ = ["checked_description", "make_trigger", "trigger_text"]


def make_trigger(catalog: Catalog, described: Mapping[str, Any]) -> Trigger:
    """The trigger of this description, `{"use": provider's name, **settings}`.

    Raises `UnknownPlugin`, `PluginLoadError` or `SettingsError`.
    """
    settings = dict(described)
    name = settings.pop("use", None)
    if not isinstance(name, str):
        raise ConfigurationError(f"a trigger's description {described!r} does not say what to use: cron, every …")
    return cast("Trigger", catalog.provider("camora_triggers", name).make(settings=settings))


def checked_description(catalog: Catalog, key: str, trigger: Trigger) -> dict[str, Any]:
    """What a trigger says of itself, once it is known that a scheduler can make it again from that.

    Raises `ConfigurationError` naming the schedule.
    """
    described = trigger.describe()
    try:
        make_trigger(catalog, described)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"schedule {key!r}: a scheduler could not make {trigger!r} again from what it describes itself as, "
            f"{described!r}: {error}"
        ) from None
    return described


def trigger_text(described: Mapping[str, Any]) -> str:
    """A trigger for people: `cron('0 9 * * 1-5', tz='Europe/Paris')`."""
    settings = {name: value for name, value in described.items() if name != "use"}
    first = [repr(settings.pop(name)) for name in ("expression", "at") if name in settings]
    if settings.get("tz") == "UTC":
        del settings["tz"]
    parts = [*first, *(f"{name}={value!r}" for name, value in settings.items())]
    return f"{described.get('use', '?')}({', '.join(parts)})"
