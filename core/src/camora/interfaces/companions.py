"""What else the store of a broker or of a result backend can keep."""

from __future__ import annotations

from camora.interfaces.journal import Journal
from camora.interfaces.limits import Limits
from camora.interfaces.schedule import ScheduleStore
from camora.interfaces.workers import WorkerDirectory
from camora.interfaces.workflows import WorkflowStore

__all__ = ["Companions"]


class Companions:
    """Mixed into `Broker` and `ResultBackend`. Each answer is unopened and on the same data; None: not kept here.

    An app asks its broker first, then its result backend; a feature that neither keeps is refused in words when it is
    asked for.
    """

    def own_limits(self) -> Limits | None:
        """Rates and slots across all workers: `rate_limit`, `max_concurrency`."""
        return None

    def own_schedules(self) -> ScheduleStore | None:
        """Schedules."""
        return None

    def own_workers(self) -> WorkerDirectory | None:
        """The directory of workers."""
        return None

    def own_workflows(self) -> WorkflowStore | None:
        """The store of workflows."""
        return None

    def own_journal(self) -> Journal | None:
        """The journal of jobs that are done in steps."""
        return None
