"""Pydantic's core schemas: two things in them are changed, so that values arrive as they were sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from camora.interfaces import Misfit, OtherTypes
from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import PydanticCustomError, core_schema

from camora_pydantic.misfits import INSIDE

__all__ = ["adapted", "aliases_read_back"]

_VALUES = frozenset({"metadata", "config", "default", "expected", "cls", "lookup", "tags"})
"""Parts of a schema that are no schemas: what is in them is left alone."""


def adapted(schema: Any, others: OtherTypes) -> Any:
    """The schema in which attrs classes are made of plain data, and secrets are written out.

    It is the very same object when there is nothing to change.
    """
    if isinstance(schema, Mapping):
        return _adapted_mapping(schema, others)
    if isinstance(schema, list | tuple):
        parts = [adapted(part, others) for part in schema]
        same = all(new is old for new, old in zip(parts, schema, strict=True))
        return schema if same else type(schema)(parts)
    return schema


def _adapted_mapping(schema: Mapping[str, Any], others: OtherTypes) -> Any:
    if schema.get("type") == "is-instance" and hasattr(schema["cls"], "__attrs_attrs__"):
        return _from_data(schema, others)
    if "serialization" in schema and schema["serialization"].get("function") in _hiding():
        return {**schema, "serialization": _REVEALED}
    parts = {name: part if name in _VALUES else adapted(part, others) for name, part in schema.items()}
    return schema if all(parts[name] is schema[name] for name in parts) else parts


def _from_data(schema: Mapping[str, Any], others: OtherTypes) -> Any:
    kind = schema["cls"]

    def make(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        try:
            return others.structurer(kind)(value)
        except Misfit as error:
            raise PydanticCustomError("misfit", "does not fit", {INSIDE: error.places}) from error

    made = core_schema.no_info_plain_validator_function(make)
    return {**made, **{name: schema[name] for name in ("ref", "metadata", "serialization") if name in schema}}


def _reveal(value: Any) -> Any:
    return value.get_secret_value()


_REVEALED = core_schema.plain_serializer_function_ser_schema(_reveal, when_used="unless-none")


@cache
def _hiding() -> frozenset[Any]:
    """The functions by which pydantic's secrets serialize themselves as asterisks."""
    found = (_functions(TypeAdapter(kind).core_schema) for kind in (SecretStr, SecretBytes, Secret[str]))
    return frozenset(function for functions in found for function in functions)


def _functions(schema: Any) -> Iterator[Any]:
    for part in _parts(schema):
        if isinstance(serialization := part.get("serialization"), Mapping):
            yield serialization["function"]


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a schema."""
    if isinstance(schema, Mapping):
        yield schema
        for name, part in schema.items():
            if name not in _VALUES:
                yield from _parts(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _parts(part)


def aliases_read_back(schema: Any) -> bool:
    """Whether every field that is serialized under an alias is also validated under it."""
    return all(_reads(name, field) for name, field in _fields(schema))


def _fields(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for part in _parts(schema):
        if part.get("type") in ("model-fields", "typed-dict"):
            yield from part["fields"].items()
        elif part.get("type") == "dataclass-args":
            yield from ((field["name"], field) for field in part["fields"])


def _reads(name: str, field: Mapping[str, Any]) -> bool:
    written, read = field.get("serialization_alias", name), field.get("validation_alias", name)
    return written in (name, read) or (isinstance(read, list) and [written] in read)
