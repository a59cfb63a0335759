"""Which types are pydantic's, and how the app converts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from camora.interfaces import Misfit, OtherTypes, TypeSupport

if TYPE_CHECKING:
    from camora_pydantic.wire import Wire

__all__ = ["PydanticSupport"]

_OWN = "__get_pydantic_core_schema__"
_CONSTRAINTS = ("pydantic", "annotated_types")


class PydanticSupport(TypeSupport):
    """Everything that pydantic alone understands; lists, unions and classes around it stay with the core.

    Pydantic checks values as it does anywhere: by the model's own configuration.
    """

    def __init__(self) -> None:
        self._wires: dict[tuple[Any, OtherTypes], Wire] = {}

    def knows(self, annotation: Any) -> bool:
        """Models, pydantic dataclasses, types with a schema of their own, and `Annotated` with pydantic's words."""
        if get_origin(annotation) is Annotated:
            inner, *words = get_args(annotation)
            return any(_is_word(word) for word in words) or self.knows(inner)
        kind = get_origin(annotation) or annotation
        return isinstance(kind, type) and (hasattr(kind, _OWN) or "__pydantic_validator__" in kind.__dict__)

    def structurer(self, annotation: Any, others: OtherTypes) -> Callable[[Any], Any]:
        """Validation, as of JSON: what JSON has no type for is read from text and lists even in strict mode."""
        return self._wire(annotation, others).load

    def unstructurer(self, annotation: Any, others: OtherTypes) -> Callable[[Any], Any]:
        """Serialization for JSON, by the names that `structurer` reads."""
        return self._wire(annotation, others).dump

    def _wire(self, annotation: Any, others: OtherTypes) -> Wire:
        from camora_pydantic.wire import Wire

        found = self._wires.get((annotation, others))
        if found is None:
            found = self._wires[annotation, others] = Wire(annotation, others)
        return found

    def make(self, kind: type[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """`kind(**kwargs)`."""
        from pydantic import ValidationError

        from camora_pydantic.misfits import misfit

        if args:
            raise Misfit([("", f"takes its fields by name, got {len(args)} by position")])
        try:
            return kind(**kwargs)
        except ValidationError as error:
            raise misfit(error) from error


def _is_word(word: Any) -> bool:
    module = (word if isinstance(word, type) else type(word)).__module__
    return module.partition(".")[0] in _CONSTRAINTS or hasattr(word, _OWN)
