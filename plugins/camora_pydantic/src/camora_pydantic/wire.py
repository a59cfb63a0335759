"""One annotation: its values as plain data, and back."""

from __future__ import annotations

import contextlib
from dataclasses import is_dataclass
from typing import Any, get_origin

from camora.errors import ConfigurationError
from camora.interfaces import Misfit, OtherTypes
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, SchemaSerializer, SchemaValidator, to_json

from camora_pydantic.misfits import misfit
from camora_pydantic.schema import adapted, aliases_read_back

__all__ = ["Wire"]

_FREE = ConfigDict(arbitrary_types_allowed=True)


class Wire:
    """Pydantic's validator and serializer, changed where values would not arrive as they were sent.

    Raises `ConfigurationError` for an annotation of which pydantic can make no schema.
    """

    def __init__(self, annotation: Any, others: OtherTypes) -> None:
        self._class = _class_of(annotation)
        self._others = others
        try:
            adapter = _adapter(annotation)
            schema = adapter.core_schema
            changed = adapted(schema, others)
        except PydanticUserError as error:
            raise ConfigurationError(f"{annotation!r} cannot be read by pydantic: {_first_line(error)}") from error
        if changed is schema:
            self._validator: Any = adapter.validator
            self._serializer: Any = adapter.serializer
        else:
            # Models inside would else be validated and serialized by what they were compiled to, not by this schema.
            self._validator = SchemaValidator(changed, _use_prebuilt=False)
            self._serializer = SchemaSerializer(changed, _use_prebuilt=False)
        # None: as the models' own configuration says.
        self._by_alias = None if aliases_read_back(schema) else False

    def load(self, data: Any) -> Any:
        """The value. Fields are read by alias and by name."""
        try:
            return self._validator.validate_json(to_json(data), by_alias=True, by_name=True)
        except ValidationError as error:
            raise misfit(error) from None

    def dump(self, value: Any) -> Any:
        """Plain data, secrets in clear."""
        if self._class is not None and not isinstance(value, self._class):
            raise Misfit([("", f"expected {self._class.__name__}, got {type(value).__name__}")])
        try:
            return self._serializer.to_python(
                value, mode="json", by_alias=self._by_alias, round_trip=True, warnings=False, fallback=self._foreign
            )
        except PydanticSerializationError as error:
            raise Misfit([("", _first_line(error))]) from None

    def _foreign(self, value: Any) -> Any:
        """A value of a type that pydantic does not know, wherever it is found."""
        return self._others.unstructurer(type(value))(value)


def _class_of(annotation: Any) -> type[Any] | None:
    """The class of a model or dataclass; other types have values of any class, such as an email address."""
    kind = get_origin(annotation) or annotation
    is_class = isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind))
    return kind if is_class else None


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    with contextlib.suppress(PydanticUserError):  # types with a configuration of their own are not given another
        return TypeAdapter(annotation, config=_FREE)
    return TypeAdapter(annotation)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
