"""Tasks compiled: their parameters and their results, by annotation. One per app."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from camora.context import Context
from camora.interfaces.injector import Injector
from camora.message import Message
from camora.parameters import Parameters, hints_of
from camora.task import AnyTask

if TYPE_CHECKING:
    from camora.convert import Conversion

__all__ = ["Binding"]


class Binding:
    """Reads annotations when a task is first used, not when it is declared, so that types may be defined later."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector
        self._conversion: Conversion | None = None
        self._parameters: dict[AnyTask, Parameters] = {}
        self._results: dict[AnyTask, tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] = {}

    @property
    def conversion(self) -> Conversion:
        """The converter; plugins may add hooks to it before the first task is used."""
        if self._conversion is None:
            from camora.convert import Conversion

            self._conversion = Conversion()
        return self._conversion

    def parameters_of(self, task: AnyTask) -> Parameters:
        """The task's parameters. Raises `ConfigurationError` for annotations that cannot be read."""
        found = self._parameters.get(task)
        if found is None:
            made = (
                Parameters.of_class(task.name, task.function, self.conversion)  # type: ignore[arg-type]
                if task.is_class
                else Parameters.of_function(task.name, task.function, self.conversion, self._is_injected)
            )
            found = self._parameters[task] = made
        return found

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
            annotation = hints_of(function, task.name).get("return", Any)
            if annotation is type(None):
                annotation = Any
            travels = self.conversion.travels(annotation)
            found = self._results[task] = (
                self.conversion.unstructurer(annotation if travels else Any),
                self.conversion.structurer(annotation) if travels else None,
            )
        return found

    def problems(self, tasks: list[AnyTask]) -> list[str]:
        """What keeps tasks from running here: parameters that nobody fills. One text each."""
        found = list(self._injector.problems())
        for task in tasks:
            parameters = self.parameters_of(task)
            for name, kind in parameters.injected.items():
                if name in parameters.optional_injected or self._is_injected(kind) or name in parameters.payload:
                    continue
                shown = getattr(kind, "__qualname__", str(kind))
                found.append(
                    f"{task.name}: nobody provides {shown} for its parameter {name!r}. Add a factory to "
                    f"Camora(dependencies=[…]) whose return annotation is {shown}"
                )
        return found
