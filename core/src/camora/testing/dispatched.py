"""What was dispatched in a test, and asserts about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import attrs

from camora.binding import Binding
from camora.message import Envelope, Message
from camora.secrets import Secrets
from camora.testing.names import task_name

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["Dispatched", "DispatchedJob"]

_SHOWN = 10
_OPEN = Secrets()


@attrs.frozen(slots=False, eq=False)
class DispatchedJob:
    """One job as it was sent. Durations are seconds."""

    message: Message
    _app: Camora
    _binding: Binding
    _owned: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The job's id."""
        return self.message.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self.message.task

    @property
    def queue(self) -> str:
        """The queue it was sent to."""
        return self.message.queue

    @property
    def delay(self) -> float:
        """How long after its dispatch it is due."""
        return max(0, self.message.due - self.message.created) / 1000

    @property
    def options(self) -> dict[str, Any]:
        """Queue, delay, priority, key, timeout, headers, `expires_in` (None for never), and plugins' options."""
        message = self.message
        return {
            "queue": message.queue,
            "delay": self.delay,
            "priority": message.priority,
            "key": message.key,
            "timeout": message.timeout,
            "headers": message.headers,
            "expires_in": None if message.expires is None else (message.expires - message.created) / 1000,
            **self._owned,
        }

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """By name, as the types that the task's function gets; plain data where the task is not registered here."""
        return self._structured[1]

    @cached_property
    def args(self) -> list[Any]:
        """What goes by position: arguments of functions that take `*args`, or tasks that are not registered here."""
        return self._structured[0]

    @cached_property
    def _structured(self) -> tuple[list[Any], dict[str, Any]]:
        task = self._app.tasks.get(self.task)
        if task is None:
            return list(self.message.args), dict(self.message.kwargs)
        return self._binding.parameters_of(task).into(self.message.args, self.message.kwargs)

    @property
    def secrets(self) -> Secrets:
        """Which arguments must not be shown."""
        task = self._app.tasks.get(self.task)
        return _OPEN if task is None else task.secrets

    def __str__(self) -> str:
        options = {name: value for name, value in self.options.items() if value and (name, value) != _DEFAULT_QUEUE}
        more = f" with {', '.join(f'{name}={value!r}' for name, value in options.items())}" if options else ""
        return f"{self.task}({self.secrets.shown(self.args, self.arguments)}){more}"

    def __repr__(self) -> str:
        return f"<DispatchedJob {self}>"


_DEFAULT_QUEUE = ("queue", "default")


class Dispatched(Sequence[DispatchedJob]):
    """The jobs that were dispatched, in order; what the broker had already is not among them."""

    def __init__(self, app: Camora) -> None:
        self._app = app
        self._binding = Binding(app.injector)
        self._jobs: list[DispatchedJob] = []

    def add(self, envelope: Envelope) -> None:
        """Take note of one."""
        message = self._app.codec.decode(envelope.body)
        self._jobs.append(DispatchedJob(message, self._app, self._binding, envelope.options or {}))

    def of(self, task: object) -> list[DispatchedJob]:
        """Those of one task: a task, a task class, or a name."""
        name = self._name(task)
        return [job for job in self._jobs if job.task == name]

    def _name(self, what: object) -> str:
        for task in self._app.tasks:
            if task.function is what:
                return task.name
        return task_name(what)

    def _wanted(self, what: object, arguments: dict[str, Any], options: Mapping[str, Any] | None) -> _Wanted:
        task = self._app.tasks.get(self._name(what))
        return _Wanted(arguments, dict(options or {}), _OPEN if task is None else task.secrets)

    def clear(self) -> None:
        """Forget what was dispatched so far."""
        self._jobs.clear()

    def assert_dispatched(
        self,
        task: object,
        /,
        *,
        times: int | None = None,
        options: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> DispatchedJob:
        """The first job of this task that has these arguments, and these `options`, among others.

        `times`: exactly so many must have them. Raises `AssertionError` that shows the nearest candidate.
        """
        __tracebackhide__ = True
        candidates = self.of(task)
        wanted = self._wanted(task, arguments, options)
        found = [job for job in candidates if not wanted.differences(job)]
        if found and (times is None or len(found) == times):
            return found[0]
        name = self._name(task)
        if found or (times == 0 and not found):
            if times == 0:
                raise AssertionError("times=0: say assert_not_dispatched")
            shown = "\n".join(f"  {job}" for job in found[:_SHOWN])
            raise AssertionError(f"{name} was dispatched {len(found)} times{wanted}, not {times}:\n{shown}")
        raise AssertionError(self._explain(name, candidates, wanted))

    def assert_not_dispatched(
        self, task: object, /, *, options: Mapping[str, Any] | None = None, **arguments: Any
    ) -> None:
        """No job of this task has these arguments and options. Raises `AssertionError`."""
        __tracebackhide__ = True
        wanted = self._wanted(task, arguments, options)
        found = [job for job in self.of(task) if not wanted.differences(job)]
        if found:
            shown = "\n".join(f"  {job}" for job in found[:_SHOWN])
            raise AssertionError(f"{self._name(task)} was dispatched{wanted}, {len(found)} times:\n{shown}")

    def assert_nothing_dispatched(self) -> None:
        """Nothing at all was dispatched. Raises `AssertionError`."""
        __tracebackhide__ = True
        if self._jobs:
            raise AssertionError(f"{len(self)} jobs were dispatched:\n{self._list()}")

    def _explain(self, name: str, candidates: Sequence[DispatchedJob], wanted: _Wanted) -> str:
        if not candidates:
            import difflib

            others = sorted({job.task for job in self._jobs})
            near = difflib.get_close_matches(name, others, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            rest = f" Dispatched were:\n{self._list()}" if self._jobs else " Nothing was dispatched at all."
            return f"{name} was not dispatched{hint}{'' if hint else '.'}{rest}"
        nearest = min(candidates, key=lambda job: len(wanted.differences(job)))
        differences = "\n".join(f"    {difference}" for difference in wanted.differences(nearest))
        return (
            f"{name} was dispatched {len(candidates)} times, but never{wanted}. The nearest:\n"
            f"  {nearest}\n{differences}"
        )

    def _list(self) -> str:
        shown = "\n".join(f"  {job}" for job in self._jobs[:_SHOWN])
        return shown + (f"\n  … and {len(self) - _SHOWN} more" if len(self) > _SHOWN else "")

    @overload
    def __getitem__(self, place: int) -> DispatchedJob: ...
    @overload
    def __getitem__(self, place: slice) -> list[DispatchedJob]: ...
    def __getitem__(self, place: int | slice) -> DispatchedJob | list[DispatchedJob]:
        return self._jobs[place]

    def __iter__(self) -> Iterator[DispatchedJob]:
        return iter(list(self._jobs))

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"<{len(self)} dispatched jobs>"


class _Wanted:
    """Arguments and options that a job is to have."""

    def __init__(self, arguments: dict[str, Any], options: dict[str, Any], secrets: Secrets) -> None:
        self._arguments = arguments
        self._options = options
        self._secrets = secrets

    def differences(self, job: DispatchedJob) -> list[str]:
        """What this job lacks, in words."""
        found = []
        for name, value in self._arguments.items():
            if name not in job.arguments:
                found.append(f"{name}: no such argument")
            elif job.arguments[name] != value:
                hidden = self._secrets.of_name(name)
                found.append(f"{name}: another secret" if hidden else f"{name}: {job.arguments[name]!r}, not {value!r}")
        for name, value in self._options.items():
            if name not in job.options:
                found.append(f"{name}: no such option; there are {', '.join(job.options)}")
            elif job.options[name] != value:
                found.append(f"{name}: {job.options[name]!r}, not {value!r}")
        return found

    def __str__(self) -> str:
        shown = [
            self._secrets.shown((), self._arguments),
            ", ".join(f"{name}={value!r}" for name, value in self._options.items()),
        ]
        wanted = ", ".join(filter(None, shown))
        return f" with {wanted}" if wanted else ""
