"""A signature: a call that is not made yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from camora.dispatchable import Dispatchable
from camora.options import DispatchOptions, DispatchOptionsDict
from camora.secrets import Secrets

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["Signature"]

R_co = TypeVar("R_co", covariant=True)


_NONE = DispatchOptions()
_OPEN = Secrets()


class Signature(Dispatchable[R_co]):
    """A task with its arguments and options: made by `task.s(…)` or `task.si(…)`, and dispatched later.

    An *immutable* signature (`si`) does not take the result of the step before it. Nothing of it changes but what
    follows: `on_success` and `on_failure`.
    """

    # Without a dictionary, so that a misspelt `on_failre` is refused instead of being forgotten.
    __slots__ = ("args", "immutable", "kwargs", "on_failure", "on_success", "options_", "task")

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
        self.on_success = self.on_failure = None

    @property
    def port(self) -> Any:
        """The app, as the task knows it."""
        return self.task.port

    @property
    def followed(self) -> bool:
        """True when something follows it."""
        return self.on_success is not None or self.on_failure is not None

    def options(self, **options: Unpack[DispatchOptionsDict]) -> Signature[R_co]:
        """The same signature with options; see `Task.options`."""
        return self.with_options(self.options_.merge(options, self.task.name, self.task.port.plugin_options))

    def with_options(self, options: DispatchOptions) -> Signature[R_co]:
        """The same signature with these options in place of its own."""
        made: Signature[R_co] = Signature(self.task, self.args, self.kwargs, immutable=self.immutable, options=options)
        made.on_success, made.on_failure = self.on_success, self.on_failure
        return made

    def __repr__(self) -> str:
        secrets: Secrets = getattr(self.task, "secrets", _OPEN)
        return f"{self.task.name}.{'si' if self.immutable else 's'}({secrets.shown(self.args, self.kwargs)})"
