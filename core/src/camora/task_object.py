"""Task classes whose fields another library makes: the payload is one object, converted as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from camora.errors import ConfigurationError, PayloadError
from camora.interfaces.types import TypeSupport
from camora.parameters import Parameter, Parameters, injected_of
from camora.plain import find_unencodable

if TYPE_CHECKING:
    from camora.convert import Conversion

__all__ = ["ObjectParameters"]


class ObjectParameters(Parameters):
    """Checks and converts the object itself, so that what its library checks about several fields is checked too."""

    def __init__(self, task: str, kind: Any, conversion: Conversion, support: TypeSupport) -> None:
        injected, optional, markers = injected_of(kind, task)
        super().__init__(task, {}, injected, optional, order=(), markers=markers)
        self._kind = kind
        self._support = support
        self._object = Parameter(
            name="",
            annotation=kind,
            required=True,
            plain=None,
            structure=conversion.structurer(kind),
            unstructure=conversion.unstructurer(kind),
        )

    def out(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, skip: int = 0) -> tuple[list[Any], dict[str, Any]]:
        """The fields of an object that is made of these arguments, or is the only one of them. Raises `PayloadError`.

        `skip` is not possible: an object is made at once.
        """
        if skip:
            raise self._bad("a result of the step before cannot be a field of this class")
        data = self._object.out(self._made(args, kwargs), self.task)
        if not isinstance(data, dict):
            found = type(data).__name__
            raise ConfigurationError(
                f"task {self.task!r}: {self._kind.__qualname__} travels as {found}; a payload is a mapping of fields"
            )
        return [], data

    def into(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The object, made of the fields that came; raises `PayloadError`."""
        if args:
            raise self._bad(f"takes its fields by name, got {len(args)} by position")
        return [self._object.into(dict(kwargs), self.task)], {}

    def _made(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], self._kind):
            return args[0]
        try:
            return self._support.make(self._kind, args, kwargs)
        except Exception as error:  # noqa: BLE001 -- whatever another library raises for wrong arguments
            refused = self._object.refused(dict(kwargs), error, self.task)
        # Or they are what travels, from a command line or a file; a worker would take that.
        if args or find_unencodable(kwargs, "") is not None:
            raise refused
        try:
            return self.into((), kwargs)[0][0]
        except PayloadError:
            raise refused from None
