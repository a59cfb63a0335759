"""Types as JSON Schema: what `Structuring` reads, and nothing it would refuse by the type alone."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from camora.config.sections import types_in_a_file
from camora.structuring import (
    BYTES,
    COLLECTIONS,
    MAPPINGS,
    SECONDS,
    Unit,
    base_and_marks,
    is_table,
    is_union,
    members,
    settings_fields,
)
from camora.units import Rate

__all__ = ["DEFINITIONS", "array_of", "one_of", "schema_of_type"]

Schema = dict[str, Any]

_VARIABLES: Schema = {"$ref": "#/$defs/variables"}
_REFERENCE: Schema = {"$ref": "#/$defs/reference"}
_DURATION = r"^\s*(\d+(\.\d+)?|(\s*\d+(\.\d+)?\s*(ms|[smhdw]))+)\s*$"
_SIZE = r"^\s*(\d+|\d+(\.\d+)?\s*([bB]|[kKmMgG]([iI])?[bB]))\s*$"
_RATE = r"^\s*\d+\s*/\s*(\d+(\.\d+)?)?\s*(ms|[smhdw])\s*$"


def _or_said_elsewhere(*schemas: Schema) -> Schema:
    """A single value may also be a text with variables, or `{ env = … }`, `{ file = … }`."""
    return {"anyOf": [*schemas, _VARIABLES, _REFERENCE]}


DEFINITIONS: Schema = {
    "variables": {
        "type": "string",
        "pattern": r"\$\{",
        "description": "A text in which ${NAME} and ${NAME:-default} stand for environment variables.",
    },
    "reference": {
        "type": "object",
        "description": "The text of an environment variable, or of a file: for secrets.",
        "properties": {"env": {"type": "string"}, "file": {"type": "string"}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    },
    "text": {"anyOf": [{"type": "string"}, _REFERENCE]},
    "whole": _or_said_elsewhere({"type": "integer"}),
    "number": _or_said_elsewhere({"type": "number"}),
    "truth": _or_said_elsewhere({"type": "boolean"}),
    "duration": _or_said_elsewhere({"type": "number"}, {"type": "string", "pattern": _DURATION}),
    "size": _or_said_elsewhere({"type": "integer"}, {"type": "string", "pattern": _SIZE}),
    "rate": _or_said_elsewhere({"type": "string", "pattern": _RATE}),
}
_NAMED: dict[Any, str] = {
    str: "text",
    Path: "text",
    datetime: "text",  # a TOML moment is a text to those who check schemas
    date: "text",
    time: "text",
    int: "whole",
    float: "number",
    bool: "truth",
    timedelta: "duration",
    Rate: "rate",
}
_UNITS = {SECONDS: "duration", BYTES: "size"}


def one_of(*choices: Schema, names: Iterable[str] = ()) -> Schema:
    """A text: one of these names, or what one of these schemas takes."""
    return _or_said_elsewhere(*([{"enum": list(names)}] if names else []), *choices)


def schema_of_type(kind: Any, field: attrs.Attribute[Any] | None = None) -> Schema:
    """The schema of a value of this type; `field` is where it goes."""
    if field is not None and field.converter is not None and not _says_all(kind):
        return {}  # its converter may take more than the annotation says
    base, marks = base_and_marks(kind)
    unit = next((mark for mark in marks if isinstance(mark, Unit)), None)
    if unit is not None:
        return {"$ref": f"#/$defs/{_UNITS[unit]}"} if unit in _UNITS else {}
    return _of(base)


def _says_all(kind: Any) -> bool:
    """True where the type itself takes texts with units, which is what most converters are for."""
    base, marks = base_and_marks(kind)
    if is_union(base):
        return any(_says_all(member) for member in members(base))
    return bool(marks) or base in (Rate, timedelta)


def _of(base: Any) -> Schema:
    if base in _NAMED:
        return {"$ref": f"#/$defs/{_NAMED[base]}"}
    if is_union(base):
        found = [schema_of_type(member) for member in members(base)]
        return found[0] if len(found) == 1 else {"anyOf": found} if all(found) else {}
    origin = get_origin(base) or base
    if origin is Literal:
        return _or_said_elsewhere({"enum": list(get_args(base))})
    if origin in COLLECTIONS:
        return array_of(_item(base))
    if origin in MAPPINGS:
        inner = get_args(base)
        value = schema_of_type(inner[1]) if len(inner) == 2 else {}
        return {"type": "object", "additionalProperties": value or True}
    if is_table(base):
        return _table(base)
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return _or_said_elsewhere({"enum": [member.value for member in base]})
    return {}


def array_of(item: Schema) -> Schema:
    """An array, or a text with variables that holds its elements, separated by commas."""
    return {"anyOf": [{"type": "array", "items": item} if item else {"type": "array"}, _VARIABLES]}


def _item(kind: Any) -> Schema:
    inner = [item for item in get_args(kind) if item is not Ellipsis]
    return schema_of_type(inner[0]) if len(set(inner)) == 1 else {}


def _table(cls: type[Any]) -> Schema:
    kinds = types_in_a_file(cls)
    fields = settings_fields(cls)
    found: Schema = {
        "type": "object",
        "properties": {name: schema_of_type(kinds.get(field.name, Any), field) for name, field in fields.items()},
        "additionalProperties": False,
    }
    needed = [name for name, field in fields.items() if field.default is attrs.NOTHING]
    return {**found, "required": needed} if needed else found
