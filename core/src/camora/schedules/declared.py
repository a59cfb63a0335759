"""What an app declares, checked where it is declared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_args

import attrs

from camora.errors import ConfigurationError
from camora.interfaces.schedule import CatchUp, Overlap, Trigger
from camora.options import check_name
from camora.signature import Signature

__all__ = ["DeclaredSchedule", "DeclaredSchedules"]


@attrs.frozen(kw_only=True)
class DeclaredSchedule:
    """A schedule as code or settings declare it, or as it is added at run time. Raises `ConfigurationError`."""

    key: str
    signature: Signature[Any]
    trigger: Trigger
    group: str = "default"
    catch_up: CatchUp = "one"
    overlap: Overlap = "allow"
    origin: str = "code"

    def __attrs_post_init__(self) -> None:
        check_name("schedule", self.key)
        check_name("schedule group", self.group)
        where = f"schedule {self.key!r}"
        if not isinstance(self.trigger, Trigger):
            raise ConfigurationError(
                f"{where}: {self.trigger!r} is no trigger; give cron(…), every(…), calendar(…) or once(…)"
            )
        for name, choice in (("catch_up", CatchUp), ("overlap", Overlap)):
            given, allowed = getattr(self, name), get_args(choice)
            if given not in allowed:
                raise ConfigurationError(f"{where}: {name}={given!r}: one of {', '.join(map(repr, allowed))}")
        options = self.signature.options_
        for name in ("eta", "job_id", "connection"):
            if getattr(options, name) is not None:
                raise ConfigurationError(f"{where}: options({name}=…) says when or what a single job is; leave it out")
        if isinstance(options.expires, datetime):
            raise ConfigurationError(
                f"{where}: options(expires=…) is one moment for all ticks; give seconds, counted from each one"
            )


class DeclaredSchedules:
    """What one app declares; nothing here does I/O."""

    def __init__(self) -> None:
        self._by_key: dict[str, DeclaredSchedule] = {}

    def add(
        self,
        key: str,
        signature: Signature[Any],
        trigger: Trigger,
        *,
        group: str = "default",
        catch_up: CatchUp = "one",
        overlap: Overlap = "allow",
        origin: str = "code",
    ) -> None:
        """Declare one. Raises `ConfigurationError` for a key that is taken or impossible, or what is no trigger."""
        declared = DeclaredSchedule(
            key=key,
            signature=signature,
            trigger=trigger,
            group=group,
            catch_up=catch_up,
            overlap=overlap,
            origin=origin,
        )
        if key in self._by_key:
            raise ConfigurationError(f"two schedules are called {key!r}; a key names one for ever")
        self._by_key[key] = declared

    @property
    def by_key(self) -> Mapping[str, DeclaredSchedule]:
        """All of them."""
        return self._by_key
