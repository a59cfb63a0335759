"""A task: a function or class that an app knows by name."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    dataclass_transform,
    overload,
)

import attrs

from camora.dispatchable import Composer, Dispatchable, Partial
from camora.errors import ConfigurationError
from camora.job import Job
from camora.options import DispatchOptions, DispatchOptionsDict, TaskOptions
from camora.plugin_options import PluginOptions
from camora.secrets import HIDDEN, Secrets, marked_in, secrets_of
from camora.signature import Signature

if TYPE_CHECKING:
    from typing import Unpack

__all__ = [
    "AnyTask",
    "AsyncTask",
    "BaseTask",
    "Configured",
    "DispatchPort",
    "SyncTask",
    "Task",
    "check_format",
    "check_task_function",
    "default_name",
]

A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)
P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Taking(Protocol[A_contra, Q, R_co]):
    """For type checkers: whatever takes an `A` first."""

    @property
    def shape(self) -> Callable[Concatenate[A_contra, Q], R_co]:
        """What it takes and returns."""


class DispatchPort(Protocol):
    """Where a task hands its jobs: the app."""

    plugin_options: PluginOptions

    @property
    def composer(self) -> Composer:
        """Makes one thing of several. Raises `ConfigurationError` where no plugin for workflows is installed."""

    async def dispatch_signature(self, signature: Dispatchable[Any]) -> Job[Any]:
        """Dispatch."""

    def dispatch_signature_sync(self, signature: Dispatchable[Any]) -> Job[Any]:
        """Dispatch from code without an event loop; blocks."""


@dataclass_transform(field_specifiers=(attrs.field,))
class BaseTask:
    """The base of task classes: annotations are the validated payload, `execute` does the work.

    Subclasses become attrs classes. `execute` may be async or not; its parameters are injected by type.
    """

    execute: ClassVar[Callable[..., Any]]
    makes_fields: ClassVar[bool] = False
    """True in a base of another library, which makes the fields of its subclasses itself: see `TypeSupport`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.makes_fields:
            attrs.define(cls, slots=False, repr=False)

    def __repr__(self) -> str:
        """As of any attrs class, but for secrets."""
        secrets = secrets_of(type(self))
        parts = [
            f"{field.name}={HIDDEN if secrets.of_name(field.alias) else shown(getattr(self, field.name, None))}"
            for field in attrs.fields(cast("Any", type(self)))
            if field.repr and (shown := repr if field.repr is True else field.repr)
        ]
        return f"{type(self).__qualname__.rpartition('>.')[2]}({', '.join(parts)})"


def home_of(what: Any) -> str:
    """The module something was defined in, by the name other processes import it under."""
    module = getattr(what, "__module__", "") or ""
    if module not in ("__main__", "__mp_main__"):
        return module
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module


def default_name(what: Any) -> str:
    """`module:qualname` of a function, the class name of a class."""
    if isinstance(what, type):
        return what.__name__
    return f"{home_of(what)}:{what.__qualname__}"


class Task(Generic[P, R]):
    """A registered task. Calling it calls the function; `dispatch` sends it to a worker.

    Belongs to one app and is never changed: options of one dispatch live in a `Configured` view.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        config: TaskOptions,
        port: DispatchPort,
        is_async: bool,
        is_fallback: bool = False,
        owned: Mapping[str, Any] | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.config = config
        self.port = port
        self.is_async = is_async
        self.is_fallback = is_fallback
        self.owned = owned
        """The options of plugins; None when it has none."""
        self.is_class = isinstance(function, type)
        self.reference = f"{getattr(function, '__module__', '')}:{function.__qualname__}"
        self.__name__ = getattr(function, "__name__", name)
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    @cached_property
    def secrets(self) -> Secrets:
        """Which arguments nobody may see."""
        if not getattr(self.function, "makes_fields", False):
            return secrets_of(self.function)
        mark = marked_in(self.function)
        return Secrets(mark.fields, (), frozenset(mark.fields)) if mark is not None else Secrets()

    @property
    def shape(self) -> Callable[P, R]:
        """The function, as type checkers see what it takes and what its jobs come to."""
        return self.function

    @property
    def execution(self) -> str:
        """The kind of pool its function runs in, unless `pool` names one."""
        return self.config.execution or ("async" if self.is_async else "thread")

    @overload
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...  # type: ignore[overload-overlap]
    @overload
    def s(self: Taking[A, Q, R], *args: Q.args, **kwargs: Q.kwargs) -> Partial[A, R]: ...
    def s(self, *args: Any, **kwargs: Any) -> Any:
        """A signature of this call; in a workflow it gets the previous result first."""
        return Signature(self, args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """A signature of this call that stays as it is, whatever came before."""
        return Signature(self, args, kwargs, immutable=True)

    def map(self: Taking[A, ..., R], items: Iterable[A]) -> Dispatchable[list[R]]:
        """One job for each item, which it gets first; their results come in the order of the items.

        Raises `ConfigurationError` where no plugin for workflows is installed.
        """
        return cast("Dispatchable[list[R]]", cast("Any", self).port.composer.each(self, items))

    def chunks(self: Taking[A, ..., R], items: Iterable[A], size: int) -> Dispatchable[list[R]]:
        """As `map`, with `size` items to a job, which calls the function for one after the other."""
        return cast("Dispatchable[list[R]]", cast("Any", self).port.composer.each(self, items, chunk=size))

    def options(self, **options: Unpack[DispatchOptionsDict]) -> Configured[P, R]:
        """This task with options for a dispatch: `await task.options(delay=10).dispatch(…)`.

        Raises `ConfigurationError` for an unknown or impossible option.
        """
        return Configured(self, DispatchOptions().merge(options, self.name, self.port.plugin_options))

    async def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Send a job to the workers; returns when the broker has it.

        Raises `PayloadError`, `EncodeError`, `MessageTooLarge`, `BrokerUnavailable`, `DispatchUncertain` or
        `UnsupportedCapability`; see `camora.errors`.
        """
        return cast("Job[R]", await self.port.dispatch_signature(Signature(self, args, kwargs)))

    def dispatch_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """`dispatch` for code without an event loop, or in a thread; blocks."""
        return cast("Job[R]", self.port.dispatch_signature_sync(Signature(self, args, kwargs)))

    if not TYPE_CHECKING:  # type checkers know better

        def __rshift__(self, other: object) -> None:
            raise ConfigurationError(f"{self!r} >> …: that is the task itself; give a signature: {self.name}.s(…) >> …")

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class AsyncTask(Task[P, R]):
    """A task whose function is a coroutine function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function."""
        return cast("Coroutine[Any, Any, R]", self.function(*args, **kwargs))


class SyncTask(Task[P, R]):
    """A task whose function is a plain function, or a task class."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return cast("R", self.function(*args, **kwargs))


AnyTask = Task[Any, Any]


class Configured(Generic[P, R]):
    """A task seen with options; the task itself is unchanged."""

    __slots__ = ("_options", "_task")

    def __init__(self, task: Task[P, R], options: DispatchOptions) -> None:
        self._task = task
        self._options = options

    @property
    def shape(self) -> Callable[P, R]:
        """As `Task.shape`."""
        return self._task.shape

    def options(self, **options: Unpack[DispatchOptionsDict]) -> Configured[P, R]:
        """These options with more on top."""
        task = self._task
        return Configured(task, self._options.merge(options, task.name, task.port.plugin_options))

    @overload
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...  # type: ignore[overload-overlap]
    @overload
    def s(self: Taking[A, Q, R], *args: Q.args, **kwargs: Q.kwargs) -> Partial[A, R]: ...
    def s(self, *args: Any, **kwargs: Any) -> Any:
        """As `Task.s`."""
        return Signature(self._task, args, kwargs, options=self._options)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """As `Task.si`."""
        return Signature(self._task, args, kwargs, immutable=True, options=self._options)

    async def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `Task.dispatch`, with these options."""
        signature: Signature[R] = Signature(self._task, args, kwargs, options=self._options)
        return cast("Job[R]", await self._task.port.dispatch_signature(signature))

    def dispatch_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `Task.dispatch_sync`, with these options."""
        signature: Signature[R] = Signature(self._task, args, kwargs, options=self._options)
        return cast("Job[R]", self._task.port.dispatch_signature_sync(signature))


def check_task_function(function: Any) -> bool:
    """True for a coroutine function, False for a plain one; raises `ConfigurationError` for what is no task."""
    import inspect

    if isinstance(function, type):
        if not issubclass(function, BaseTask):
            raise ConfigurationError(
                f"{function.__qualname__} is no task: a task class derives from camora.BaseTask and has an execute"
                " method"
            )
        execute = getattr(function, "execute", None)
        if execute is None:
            raise ConfigurationError(f"{function.__qualname__} has no execute method")
        return inspect.iscoroutinefunction(execute)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(f"{function.__qualname__} is a generator; a task returns one value")
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise ConfigurationError(f"{function!r} is no task: give a function or a BaseTask class")
    return inspect.iscoroutinefunction(function)


def check_format(where: str, template: object, function: Any) -> None:
    """Whether a format string names only parameters of the function, or fields of the task class.

    What is no text passes: a callable is asked when a job is dispatched. Raises `ConfigurationError`.
    """
    import difflib
    import inspect
    import string

    if not isinstance(template, str):
        return
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ConfigurationError(f"{where} = {template!r}: {error}") from None
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for field in fields:
        name = re.split(r"[.\[]", field, maxsplit=1)[0]
        if name.isdigit() or not name or name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
        raise ConfigurationError(f"{where} = {template!r}: no parameter is called {name!r}: {hint}")
