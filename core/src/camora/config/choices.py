"""What the settings chose, not made yet."""

from __future__ import annotations

from typing import Any

import attrs

from camora.config.locate import KeyPath
from camora.interfaces.schedule import CatchUp, Overlap, Trigger
from camora.provider import Provider

__all__ = ["Choice", "Reference", "Scheduled", "Signing"]


@attrs.frozen(kw_only=True)
class Choice:
    """A plugin's offer with its settings; making it does no I/O, but imports what it needs."""

    path: KeyPath
    provider: Provider[Any]
    url: str | None = attrs.field(default=None, repr=False)
    folder: str | None = None
    settings: Any = attrs.field(default=None, repr=False)

    def make(self) -> Any:
        """The thing itself."""
        return self.provider.make(self.url, self.settings, folder=self.folder)


@attrs.frozen(kw_only=True)
class Reference:
    """Something of the user's own, by its import name."""

    path: KeyPath
    name: str


@attrs.frozen(kw_only=True)
class Signing:
    """How messages are signed."""

    path: KeyPath
    keys: tuple[str, ...] = attrs.field(repr=False)
    accept_unsigned: bool
    max_age: float | None


@attrs.frozen(kw_only=True)
class Scheduled:
    """A schedule; the task is a name, because tasks are registered later than settings are read."""

    path: KeyPath
    key: str
    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    trigger: Trigger
    group: str
    catch_up: CatchUp
    overlap: Overlap
