"""What was read, checked and not made yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from camora.config.choices import Choice, Reference, Scheduled, Signing
from camora.config.source import Source
from camora.errors import ConfigurationError, SettingsError
from camora.interfaces.pool import PoolSettings
from camora.plugins import Catalog
from camora.queue import Queue
from camora.settings import AppSettings, WorkerSettings

if TYPE_CHECKING:
    from camora.schedules import DeclaredSchedules

__all__ = ["Configuration"]


@attrs.frozen(kw_only=True)
class Configuration:
    """Settings from a file and the environment, complete and without mistakes.

    `path` is the file, `profile` the one that was laid over it; `app` is where the app is (`module:attribute`), if the
    file says so. Nothing has been made or imported yet, but the plugins: see `camora.config.app_arguments`.
    """

    path: Path
    profile: str | None
    catalog: Catalog = attrs.field(repr=False)
    app: str | None
    name: str | None
    broker: Choice | None
    results: Choice | bool | None
    """None: those of the broker's own store."""
    outbox: Choice | None
    codec: Choice | None
    result_codec: Choice | None
    signing: Signing | None
    retry: Choice | None
    settings: AppSettings
    worker: WorkerSettings
    queues: Mapping[str, Queue]
    pools: Mapping[str, PoolSettings]
    middleware: tuple[Choice | Reference, ...]
    observers: tuple[Choice | Reference, ...]
    extensions: Mapping[str, Any] = attrs.field(repr=False)
    """The settings of extensions, by their names."""
    task_options: Mapping[str, Mapping[str, Any]]
    schedules: tuple[Scheduled, ...]
    source: Source = attrs.field(repr=False)
    """The settings as they stand in file and environment, with their places."""

    def place_queues(self, app: Any) -> None:
        """Tell the app where its `[queues.NAME]` stand, for errors that name them."""
        for name in self.queues:
            app._declarations.place(name, str(self.source.place(("queues", name))))  # noqa: SLF001 -- made for this

    def declare_schedules(self, app: Any) -> None:
        """Give the app its `[[schedules]]`; tasks are looked up by name when a schedule fires.

        Raises `SettingsError` naming those whose key the app's code has taken.
        """
        declared: DeclaredSchedules = app._declared_schedules  # noqa: SLF001 -- made for this
        problems = []
        for schedule in self.schedules:
            try:
                declared.add(
                    schedule.key,
                    app._signature(schedule.task, schedule.args, schedule.kwargs),  # noqa: SLF001
                    schedule.trigger,
                    group=schedule.group,
                    catch_up=schedule.catch_up,
                    overlap=schedule.overlap,
                    origin="config",
                )
            except ConfigurationError as error:
                problems.append(f"{self.source.place(schedule.path)}: {error}")
        if problems:
            raise SettingsError("\n".join(problems), problems=problems)
