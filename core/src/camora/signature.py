"""A signature: a call that is not made yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from camora.job import Job
from camora.options import DispatchOptions, DispatchOptionsDict
from camora.secrets import Secrets

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["Signature"]

R_co = TypeVar("R_co", covariant=True)


_NONE = DispatchOptions()
_OPEN = Secrets()


class Signature(Generic[R_co]):
    """A task with its arguments and options: made by `task.s(…)` or `task.si(…)`, dispatched later, never changed.

    An *immutable* signature (`si`) does not take the result of the step before it.
    """

    __slots__ = ("args", "immutable", "kwargs", "options_", "task")

    def __init__(
        self,
        task: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        immutable: bool = False,
        options: DispatchOptions | None = None,
    ) -> None:
        self.task = task
        self.args = tuple(args)
        self.kwargs = dict(kwargs)
        self.immutable = immutable
        self.options_ = _NONE if options is None else options

    def options(self, **options: Unpack[DispatchOptionsDict]) -> Signature[R_co]:
        """The same signature with options; see `Task.options`."""
        merged = self.options_.merge(options, self.task.name, self.task.port.plugin_options)
        return Signature(self.task, self.args, self.kwargs, immutable=self.immutable, options=merged)

    async def dispatch(self) -> Job[R_co]:
        """Dispatch it now."""
        job: Job[R_co] = await self.task.port.dispatch_signature(self)
        return job

    def dispatch_sync(self) -> Job[R_co]:
        """Dispatch it now, from code without an event loop; blocks."""
        job: Job[R_co] = self.task.port.dispatch_signature_sync(self)
        return job

    def __repr__(self) -> str:
        secrets: Secrets = getattr(self.task, "secrets", _OPEN)
        return f"{self.task.name}.{'si' if self.immutable else 's'}({secrets.shown(self.args, self.kwargs)})"
