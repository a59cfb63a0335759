"""What a worker process is to do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from camora.settings import WorkerSettings

__all__ = ["WorkOrder"]

_PREFIX = "CAMORA_WORKER__"


@attrs.frozen(kw_only=True)
class WorkOrder:
    """Plain data, so that it travels to other processes.

    `settings` are the fields of a `WorkerSettings`, whole; where they are None, `given` (some fields, from the command
    line) lies over the environment, that over what the app says, and that over the defaults.
    """

    queues: Sequence[str] | None = None
    threads: Mapping[str, int] = attrs.field(factory=dict)
    settings: Mapping[str, Any] | None = None
    given: Mapping[str, Any] = attrs.field(factory=dict)
    longest_stop: float | None = None
    """Bounds `shutdown_timeout`, in seconds."""
    burst: bool = False
    scheduler: bool = False
    """Run the app's schedules in the same loop."""
    show_jobs: bool = False
    """Log how each job ends, where the app has no observers of its own."""

    def settings_for(self, app: Any, environ: Mapping[str, str] = os.environ) -> WorkerSettings:
        """The settings in force for a worker of this app. Raises `SettingsError`."""
        if self.settings is not None:
            found = WorkerSettings(**self.settings)
        else:
            said: dict[str, Any] = {} if app.worker_settings is None else attrs.asdict(app.worker_settings)
            in_environment = {name.removeprefix(_PREFIX).lower() for name in environ if name.startswith(_PREFIX)}
            said = {name: value for name, value in said.items() if name not in in_environment}
            found = WorkerSettings.from_environment(environ, **{**said, **self.given})
        if self.longest_stop is not None:
            found = attrs.evolve(found, shutdown_timeout=min(found.shutdown_timeout, self.longest_stop))
        return found
