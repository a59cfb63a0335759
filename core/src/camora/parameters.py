"""A task's parameters, compiled once: bound and checked at dispatch, structured where the job runs."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from camora.dependencies import Marker, is_inject, marked
from camora.errors import ConfigurationError, PayloadError
from camora.interfaces.types import Misfit
from camora.secrets import marked_in

if TYPE_CHECKING:
    from camora.convert import Conversion

__all__ = ["Parameter", "Parameters", "hints_of", "injected_of"]

_PLAIN = frozenset({int, str, bool, float})
_SAYS_NOTHING = ("is missing", "is nested too deeply")
"""Reasons that hold nothing of a value."""
_KEY = "['"
"""In a place, where a mapping's key begins."""


@attrs.frozen(kw_only=True)
class Parameter:
    """One parameter that may come from the payload. `plain` types need no conversion, only a look."""

    name: str
    annotation: Any
    required: bool
    plain: type | None
    structure: Callable[[Any], Any] | None
    unstructure: Callable[[Any], Any]

    def out(self, value: Any, task: str) -> Any:
        """The value as plain data, checked as the worker will check it. Raises `PayloadError`."""
        if type(value) is self.plain:
            return value
        try:
            data = self.unstructure(value)
            if self.structure is not None:
                self.structure(data)
        except Exception as error:  # noqa: BLE001 -- a hook may raise anything for a wrong value
            raise self.refused(value, error, task) from None
        return data

    def into(self, data: Any, task: str) -> Any:
        """Plain data as the annotated type. Raises `PayloadError`."""
        if type(data) is self.plain or self.structure is None:
            return data
        try:
            return self.structure(data)
        except Exception as error:  # noqa: BLE001 -- a hook may raise anything for a wrong value
            raise self.refused(data, error, task) from None

    def refused(self, value: Any, error: BaseException, task: str) -> PayloadError:
        """The error for a value that does not fit."""
        from camora.explaining import explain

        path, why = explain(error, self.name)
        path = path.removeprefix(".")  # of an object that has no name, but fields
        mark = marked_in(self.annotation)
        if mark is not None and why not in _SAYS_NOTHING:  # it may quote the value, and the path a key of it
            path = self.name if mark.whole else path.partition("[")[0]
            if not mark.whole and isinstance(error, Misfit) and error.discreet:
                spot, why = error.places[0]
                return _refusal(task, f"{self.name}{spot.partition(_KEY)[0]}".removeprefix("."), why)
            why = "does not fit its type; what came is not shown, for there is a Secret in it"
            return _refusal(task, path, why)
        if isinstance(error, AttributeError):  # cattrs unstructures by field, whatever it is given
            generic = typing.get_origin(self.annotation) is not None
            wanted = str(self.annotation) if generic else getattr(self.annotation, "__name__", str(self.annotation))
            why = f"expected {wanted}, got {type(value).__name__}"
        return _refusal(task, path, why)


def _refusal(task: str, path: str, why: str) -> PayloadError:
    return PayloadError(": ".join(filter(None, (task, path, why))), task=task, field=path)


def hints_of(what: Any, label: str) -> dict[str, Any]:
    """Resolved annotations. Raises `ConfigurationError` for one that names something unknown."""
    try:
        return typing.get_type_hints(what, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"{label}: an annotation cannot be resolved: {error}. Import the type at module level, "
            "where annotations are read"
        ) from None


def injected_of(kind: type[Any], task: str) -> tuple[dict[str, Any], frozenset[str], dict[str, Marker]]:
    """What the `execute` of a task class is given, by name, which of that it can do without, and what is marked."""
    hints = hints_of(kind.execute, f"{task}.execute")
    injected, optional, markers = {}, set(), {}
    for parameter in list(inspect.signature(kind.execute).parameters.values())[1:]:
        injected[parameter.name], marker = marked(hints.get(parameter.name, Any))
        if marker is not None:
            markers[parameter.name] = marker
        if parameter.default is not parameter.empty and not is_inject(parameter.default):
            optional.add(parameter.name)
    return injected, frozenset(optional), markers


class Parameters:
    """What a task takes: `payload` from the message, `injected` from the injector, by name."""

    def __init__(
        self,
        task: str,
        payload: Mapping[str, Parameter],
        injected: Mapping[str, Any],
        optional_injected: frozenset[str],
        *,
        order: Sequence[str],
        positional_only: int = 0,
        rest: Parameter | None = None,
        rest_named: Parameter | None = None,
        stuck: Mapping[str, Any] = {},
        markers: Mapping[str, Marker] = {},
    ) -> None:
        self.task = task
        self.payload = dict(payload)
        self.injected = dict(injected)
        self.optional_injected = optional_injected
        self.markers = dict(markers)
        """Of injected parameters, by name: they wrap the run."""
        self._order = tuple(order)
        self._positional_only = positional_only
        self._rest = rest
        self._rest_named = rest_named
        # Injected only because their types do not travel: nobody is known to provide them.
        self._stuck = dict(stuck)
        self._required = frozenset(name for name, parameter in self.payload.items() if parameter.required)
        self.never_filled = frozenset(injected) - self.payload.keys()

    @classmethod
    def of_function(
        cls, task: str, function: Callable[..., Any], conversion: Conversion, is_injected: Callable[[Any], bool]
    ) -> Parameters:
        """Read a function's signature; `is_injected` says which types the injector provides."""
        hints = hints_of(function, task)
        payload: dict[str, Parameter] = {}
        injected: dict[str, Any] = {}
        stuck: dict[str, Any] = {}
        markers: dict[str, Marker] = {}
        order, optional = [], set()
        positional_only, rest, rest_named = 0, None, None
        for parameter in inspect.signature(function).parameters.values():
            annotation, marker = marked(hints.get(parameter.name, Any))
            if marker is not None:
                markers[parameter.name] = marker
            never_sent = is_inject(parameter.default) or marker is not None
            required = never_sent or parameter.default is parameter.empty
            made = partial(_parameter, parameter.name, annotation, required, conversion)
            if parameter.kind is parameter.VAR_POSITIONAL:
                rest = made()
            elif parameter.kind is parameter.VAR_KEYWORD:
                rest_named = made()
            elif never_sent or is_injected(annotation) or not conversion.travels(annotation):
                injected[parameter.name] = annotation
                if not never_sent and not is_injected(annotation):
                    stuck[parameter.name] = annotation
                if not required:
                    optional.add(parameter.name)
                elif not never_sent and conversion.travels(annotation):
                    payload[parameter.name] = attrs.evolve(made(), required=False)
            else:
                payload[parameter.name] = made()
                positional_only += parameter.kind is parameter.POSITIONAL_ONLY
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    order.append(parameter.name)
        return cls(
            task,
            payload,
            injected,
            frozenset(optional),
            order=order,
            positional_only=positional_only,
            rest=rest,
            rest_named=rest_named,
            stuck=stuck,
            markers=markers,
        )

    @classmethod
    def of_class(cls, task: str, kind: type[Any], conversion: Conversion) -> Parameters:
        """Read a task class: its fields are the payload, `execute`'s parameters are injected."""
        hints = hints_of(kind, task)
        payload = {
            field.alias: _parameter(field.alias, hints.get(field.name, Any), field.default is attrs.NOTHING, conversion)
            for field in attrs.fields(kind)
            if field.init
        }
        injected, optional, markers = injected_of(kind, task)
        return cls(task, payload, injected, optional, order=tuple(payload), markers=markers)

    def out(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, skip: int = 0) -> tuple[list[Any], dict[str, Any]]:
        """Bind, check and unstructure a call; all that has a name travels by name.

        `skip` leaves that many leading parameters for results that are not there yet. Raises `PayloadError`.
        """
        named: dict[str, Any] = {}
        rest: list[Any] = []
        task, payload = self.task, self.payload
        if skip:
            self._refuse_what_comes(args, kwargs, skip)
        if args:
            rest = self._out_positional(args, self._order[skip:] if skip else self._order, named)
        for name, value in kwargs.items():
            parameter = payload.get(name)
            if parameter is None:
                parameter = self._extra(name)
            elif name in named:
                raise self._bad(f"{name}: given twice", name)
            named[name] = parameter.out(value, task)
        if len(named) < len(self._required) or not self._required <= named.keys():
            waiting = set(self._order[:skip])
            missing = [name for name in payload if name in self._required - named.keys() - waiting]
            if missing:
                raise self._bad(f"{missing[0]}: is missing (takes {self.text()})", missing[0])
        if rest or self._positional_only:
            # What cannot be passed by name, or stands before such a thing, goes by position.
            lead = (
                [named.pop(name) for name in self._order if name in named]
                if rest
                else [named.pop(name) for name in self._order[: self._positional_only] if name in named]
            )
            return lead + rest, named
        return rest, named

    def _refuse_what_comes(self, args: Sequence[Any], kwargs: Mapping[str, Any], skip: int) -> None:
        """Results of the step before need a place, and nothing else may be in it."""
        order = self._order
        if len(order) < skip and self._rest is None:
            raise self._bad(
                f"takes no result of the step before (takes {self.text()}); make the signature with si(…), not s(…)"
            )
        if self._rest is None and len(args) + skip > len(order):
            raise self._bad(
                f"the result of the step before comes first, and then at most {len(order) - skip} positional, got "
                f"{len(args)} (takes {self.text()}); make the signature with si(…) if it is to take none"
            )
        for name in order[:skip]:
            if name in kwargs:
                raise self._bad(
                    f"{name}: is given, and so is the result of the step before; make the signature with si(…), not "
                    "s(…)",
                    name,
                )

    def _out_positional(self, args: Sequence[Any], order: Sequence[str], named: dict[str, Any]) -> list[Any]:
        """Positional arguments into `named`; returns those that only `*args` takes."""
        if self._rest is None and len(args) > len(order):
            raise self._too_many(len(order), len(args))
        for name, value in zip(order, args, strict=False):
            named[name] = self.payload[name].out(value, self.task)
        if self._rest is None:
            return []
        return [self._rest.out(value, self.task) for value in args[len(order) :]]

    def into(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Check and structure what came; raises `PayloadError` for what is missing, too much or wrong."""
        task, payload = self.task, self.payload
        values = {}
        for name, data in kwargs.items():
            parameter = payload.get(name)
            if parameter is None:
                parameter = self._extra(name)
            values[name] = parameter.into(data, task)
        lead: list[Any] = []
        if args:
            # By position: the leading parameters that did not come by name.
            free = [name for name in self._order if name not in values]
            if len(args) > len(free) and self._rest is None:
                raise self._too_many(len(self._order), len(args) + len(values))
            for name, data in zip(free, args, strict=False):
                value = payload[name].into(data, task)
                if self._rest is not None or self._order.index(name) < self._positional_only:
                    lead.append(value)
                else:
                    values[name] = value
            if self._rest is not None:
                lead.extend(self._rest.into(data, task) for data in args[len(free) :])
        if len(values) + len(lead) < len(self._required) or not (lead or self._required <= values.keys()):
            missing = next(name for name in payload if name in self._required and name not in values)
            raise self._bad(f"{missing}: is missing (takes {self.text()})", missing)
        return lead, values

    def text(self) -> str:
        """The parameters as a reader of an error wants to see them."""
        return ", ".join(f"{name}: {_shown(item.annotation)}" for name, item in self.payload.items()) or "nothing"

    def _extra(self, name: str) -> Parameter:
        if self._rest_named is not None:
            return self._rest_named
        if name in self._stuck:
            raise self._does_not_travel(name)
        injected = "; it is injected where the job runs" if name in self.injected else ""
        raise self._bad(f"{name}: unknown argument (takes {self.text()}){injected}", name)

    def _too_many(self, most: int, got: int) -> PayloadError:
        if self._stuck:
            return self._does_not_travel(next(iter(self._stuck)))
        noun = "argument" if most == 1 else "arguments"
        injected = f"; injected where the job runs: {', '.join(self.injected)}" if self.injected else ""
        return self._bad(f"takes {most} positional {noun}, got {got} (takes {self.text()}){injected}")

    def _does_not_travel(self, name: str) -> PayloadError:
        return self._bad(
            f"{name}: {_shown(self._stuck[name])} is no type that travels, so it is taken for a dependency; "
            "make it an attrs class or a dataclass, or provide it",
            name,
        )

    def _bad(self, text: str, field: str = "") -> PayloadError:
        return PayloadError(f"{self.task}: {text}", task=self.task, field=field)


def _shown(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))


def _parameter(name: str, annotation: Any, required: bool, conversion: Conversion) -> Parameter:
    return Parameter(
        name=name,
        annotation=annotation,
        required=required,
        plain=annotation if annotation in _PLAIN and annotation is not float else None,
        structure=conversion.structurer(annotation),
        unstructure=conversion.unstructurer(annotation),
    )
