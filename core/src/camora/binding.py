"""Tasks compiled: their parameters and their results, by annotation. One per app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from camora.context import Context
from camora.errors import ConfigurationError
from camora.explaining import misfitting
from camora.interfaces.injector import Injector
from camora.interfaces.types import TypeSupport
from camora.message import Message
from camora.parameters import Parameters, hints_of
from camora.signals import successes
from camora.task import AnyTask, BaseTask, default_name
from camora.task_object import ObjectParameters

if TYPE_CHECKING:
    from camora.convert import Conversion

__all__ = ["Binding"]


class Binding:
    """Reads annotations when a task is first used, not when it is declared, so that types may be defined later."""

    def __init__(self, injector: Injector, supports: Sequence[TypeSupport] = ()) -> None:
        self._injector = injector
        self._supports = supports
        self._conversion: Conversion | None = None
        self._payloads: dict[type[BaseTask], ObjectParameters] = {}
        self._parameters: dict[AnyTask, Parameters] = {}
        self._results: dict[AnyTask, tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] = {}

    @property
    def conversion(self) -> Conversion:
        """The converter, with the types that plugins know."""
        if self._conversion is None:
            from camora.convert import Conversion

            self._conversion = Conversion(self._supports)
        return self._conversion

    def parameters_of(self, task: AnyTask) -> Parameters:
        """The task's parameters. Raises `ConfigurationError` for annotations that cannot be read."""
        found = self._parameters.get(task)
        if found is None:
            found = self._parameters[task] = self._read(task)
        return found

    def _read(self, task: AnyTask) -> Parameters:
        conversion, function = self.conversion, task.function
        if not isinstance(function, type):
            return Parameters.of_function(task.name, function, conversion, self._is_injected)
        if not getattr(function, "makes_fields", False):
            return Parameters.of_class(task.name, function, conversion)
        return self._of_object(task.name, function)

    def _of_object(self, name: str, kind: Any) -> ObjectParameters:
        support = self.conversion.support_of(kind)
        if support is None:
            raise ConfigurationError(
                f"task {name!r}: no plugin knows how a {kind.__qualname__} travels; its base class belongs to "
                "one that is not installed, or is disabled in camora.toml"
            )
        return ObjectParameters(name, kind, self.conversion, support)

    def payload_of(self, what: BaseTask) -> dict[str, Any]:
        """The payload of an object whose class no task here has. Raises `PayloadError`."""
        kind = type(what)
        found = self._payloads.get(kind)
        if found is None:
            found = self._payloads[kind] = self._of_object(default_name(kind), kind)
        return found.out((what,), {})[1]

    def _is_injected(self, annotation: Any) -> bool:
        return annotation is Context or annotation is Message or self._injector.provides(annotation)

    def result_out(self, task: AnyTask, value: Any) -> Any:
        """A result as plain data, by the annotated return type; by its own type where it is of another one.

        A function that ran must not fail for an annotation that was meant loosely.
        """
        try:
            return self._result_hooks(task)[0](value)
        except Exception:  # noqa: BLE001 -- a hook may raise anything for a value of another type
            return self.conversion.converter.unstructure(value)

    def result_into(self, task: AnyTask | None, data: Any) -> Any:
        """Plain data as the annotated return type; as it is where it does not fit or the task is not known here."""
        hook = self._result_hooks(task)[1] if task is not None else None
        if hook is None:
            return data
        try:
            return hook(data)
        except Exception:  # noqa: BLE001 -- as above
            return data

    def _result_hooks(self, task: AnyTask) -> tuple[Callable[[Any], Any], Callable[[Any], Any] | None]:
        found = self._results.get(task)
        if found is None:
            function = task.function.execute if task.is_class else task.function  # type: ignore[attr-defined]
            found = self._results[task] = self._hooks(successes(hints_of(function, task.name).get("return", Any)))
        return found

    def _hooks(self, annotation: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any] | None]:
        """Out and into; of a type that cannot be made from data, values go by their own type and stay plain."""
        if annotation is type(None):
            annotation = Any
        conversion = self.conversion
        travels = conversion.travels(annotation)
        return (
            conversion.unstructurer(annotation if travels else Any),
            conversion.structurer(annotation) if travels else None,
        )

    def value_out(self, annotation: Any, value: Any) -> Any:
        """Any value as plain data, by this type; by its own type where it is of another one."""
        try:
            return self._hooks(annotation)[0](value)
        except Exception:  # noqa: BLE001 -- as in `result_out`
            return self.conversion.converter.unstructure(value)

    def value_into(self, annotation: Any, data: Any) -> Any:
        """Plain data as this type; as it is for `Any`, and a type that no data makes. Raises `Misfit`."""
        hook = self._hooks(annotation)[1]
        return data if hook is None else misfitting(hook)(data)

    def problems(self, tasks: list[AnyTask]) -> list[str]:
        """What keeps tasks from running here: parameters that nobody fills. One text each."""
        found = list(self._injector.problems())
        for task in tasks:
            parameters = self.parameters_of(task)
            if parameters.markers and task.config.execution == "process":
                found.append(
                    f"{task.name}: its parameter {next(iter(parameters.markers))!r} is marked to wrap the run, which "
                    "works in the worker's own process only; use another execution than 'process'"
                )
            for name, kind in parameters.injected.items():
                if name in parameters.optional_injected or self._is_injected(kind) or name in parameters.payload:
                    continue
                shown = getattr(kind, "__qualname__", str(kind))
                found.append(
                    f"{task.name}: nobody provides {shown} for its parameter {name!r}. Add a factory to "
                    f"Camora(dependencies=[…]) whose return annotation is {shown}{_or_install(kind)}"
                )
        return found


def _or_install(kind: Any) -> str:
    """A name to install, not code to import."""
    if hasattr(kind, "__get_pydantic_core_schema__"):
        return "; or, if it is an argument, pip install camora-pydantic (and do not disable it)"
    return ""
