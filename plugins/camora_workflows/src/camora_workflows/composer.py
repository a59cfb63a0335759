"""What the core's `>>`, `task.map` and `dispatch` of a composition are done with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from camora.dispatchable import Dispatchable
from camora.errors import ConfigurationError, DispatchError
from camora.interfaces import Host
from camora.signature import Signature

from camora_workflows.compose import Chain, Composed, Mapped, one_of
from camora_workflows.following import Following
from camora_workflows.handle import WorkflowJob
from camora_workflows.packing import Packer
from camora_workflows.patience import patiently
from camora_workflows.recording import Recorder
from camora_workflows.settings import WorkflowSettings

__all__ = ["WorkflowComposer", "composer_of", "workflow"]

R = TypeVar("R")


class WorkflowComposer:
    """Composes and dispatches for one app; `host` and `following` are known once that is made."""

    def __init__(
        self, host: Callable[[], Host], following: Callable[[], Following], settings: WorkflowSettings | None = None
    ) -> None:
        self._host = host
        self._following = following
        self.settings = settings or WorkflowSettings()

    @property
    def host(self) -> Host:
        """The app."""
        return self._host()

    @property
    def following(self) -> Following:
        """What follows ends in its workflows."""
        return self._following()

    def then(self, first: Dispatchable[Any], second: Any) -> Dispatchable[Any]:
        """`first >> second`."""
        return Chain([first, one_of(second, f"what comes after {first!r}")])

    def each(self, task: Any, items: Iterable[Any], *, chunk: int | None = None) -> Dispatchable[Any]:
        """`task.map(items)` and `task.chunks(items, size)`."""
        return Mapped(task, items, chunk=chunk)

    async def dispatch(self, what: Dispatchable[R]) -> WorkflowJob[R]:
        """Dispatch a composition, or a signature that something follows. Raises `DispatchError`s.

        Before anything runs it is recorded whole; what fails before that has dispatched nothing.
        """
        asked_id = _id_of(what)
        host, following = self._host(), self._following()
        stores = await patiently(host, host.stores)
        store = await stores.workflows()
        if store is None:
            its_id, name = await Packer(host).dispatch(what, asked_id)
        else:
            its_id, name = await Recorder(host, following).dispatch(store, what, asked_id)
        return WorkflowJob(its_id, name, host, following)

    def handle(self, workflow_id: str) -> WorkflowJob[Any]:
        """A workflow again from its id; does no I/O."""
        return WorkflowJob(workflow_id, "", self._host(), self._following())


def workflow(app: Any, workflow_id: str) -> WorkflowJob[Any]:
    """A dispatched workflow again from its id, in any process; does no I/O.

    Raises `ConfigurationError` where the plugin for workflows is disabled.
    """
    return composer_of(app).handle(workflow_id)


def composer_of(app: Any) -> WorkflowComposer:
    """What this app composes with. Raises `ConfigurationError` where that is not this plugin."""
    composer = app.composer
    if not isinstance(composer, WorkflowComposer):
        raise ConfigurationError(f"{app!r} composes with another plugin than camora-workflows: {composer!r}")
    return composer


def _id_of(what: Dispatchable[Any]) -> str | None:
    """The id that was asked for; it becomes part of the ids of jobs, and of a header."""
    asked = what.options_.job_id if isinstance(what, Signature) else what.job_id if isinstance(what, Composed) else None
    if asked is not None and (not asked or any(letter.isspace() for letter in asked)):
        raise DispatchError(f"job_id={asked!r}: the id of a workflow has no spaces in it, and is not empty")
    return asked
