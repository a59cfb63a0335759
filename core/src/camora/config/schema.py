"""The JSON Schema of camora.toml, from the settings classes of the core and of what is installed.

It never refuses what `read` accepts. Where it cannot say what a plugin's class accepts it says nothing, and it does not
know which broker a URL stands for: `[broker]` may hold the keys of all that are installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from camora.config.effective import plain_default
from camora.config.fields import field_texts, first_paragraph
from camora.config.reading import own_tables
from camora.config.schema_types import DEFINITIONS, array_of, one_of, schema_of_type
from camora.config.sections import (
    BrokerSection,
    CodecSection,
    LimitsSection,
    OutboxSection,
    PluginsSection,
    QueueSection,
    ResultsSection,
    RetrySection,
    ScheduleSection,
    SigningSection,
    TopSection,
    UseSection,
    types_in_a_file,
)
from camora.interfaces.pool import PoolSettings
from camora.options import TaskOptions
from camora.plugins import Catalog
from camora.settings import Duration, WorkerSettings
from camora.structuring import settings_fields

__all__ = ["schema_of"]

Schema = dict[str, Any]


def schema_of(catalog: Catalog) -> Schema:
    """The schema (draft 2020-12) as plain data."""
    whole = _Tables(catalog, partial=False).top()
    part = _Tables(catalog, partial=True).top()
    whole["properties"]["profiles"] = {
        "type": "object",
        "description": "Settings by profile: those of the chosen one lie over the others.",
        "additionalProperties": {"$ref": "#/$defs/profile"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "camora.toml",
        **whole,
        "$defs": {**DEFINITIONS, "profile": part},
    }


class _Tables:
    """`partial`: nothing is required, because a profile only says what is different."""

    def __init__(self, catalog: Catalog, *, partial: bool) -> None:
        self._catalog = catalog
        self._partial = partial

    def top(self) -> Schema:
        found = self._table([TopSection])
        found["properties"] |= {
            "broker": self._with_plugins(BrokerSection, "camora_brokers"),
            "results": self._with_plugins(ResultsSection, "camora_result_backends"),
            "outbox": self._with_plugins(OutboxSection, "camora_brokers"),
            "codec": self._with_plugins(CodecSection, "camora_codecs", names=("use", "result")),
            "signing": self._table([SigningSection]),
            "retry": self._with_plugins(RetrySection, "camora_retry_policies", names=("use",)),
            "limits": self._table([LimitsSection]),
            "worker": self._table([WorkerSettings]),
            "queues": _by_name(self._queue(), "Settings of queues, by name."),
            "pools": _by_name(
                self._with_plugins(PoolSettings, "camora_pools", names=("kind",)), "Pools for the tasks that name them."
            ),
            "middleware": self._used("camora_middleware"),
            "observers": self._used("camora_observers"),
            "extensions": self._extensions(),
            "tasks": _by_name(self._tasks(), "Options of tasks, by name or pattern."),
            "schedules": {"type": "array", "items": self._schedule(), "description": "What is dispatched when."},
            "plugins": self._table([PluginsSection]),
        }
        found["properties"] |= {name: self._table(classes) for name, classes in own_tables(self._catalog).items()}
        return found

    def _table(
        self, classes: Sequence[type[Any]], *, without: Iterable[str] = (), others_needed: bool = True
    ) -> Schema:
        """A table that is read into all of these classes."""
        properties: Schema = {}
        required = []
        for index, cls in enumerate(classes):
            told, kinds = field_texts(cls), types_in_a_file(cls)
            for name, field in settings_fields(cls).items():
                if name in without:
                    continue
                one = _described(schema_of_type(kinds.get(field.name, Any), field), told.get(field.name), field, kinds)
                properties[name] = _either(properties[name], one) if name in properties else one
                if field.default is attrs.NOTHING and (index == 0 or others_needed):
                    required.append(name)
        found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required and not self._partial:
            found["required"] = required
        text = first_paragraph(classes[0])
        return {"description": text, **found} if text else found

    def _with_plugins(self, section: type[Any], hook: str, *, names: Iterable[str] = ()) -> Schema:
        """A section whose other keys are those of what it chooses; `names` are keys that name what is installed."""
        found = self._table([section, *_classes(self._catalog, hook)], others_needed=False)
        for key in names:
            _replace(found, key, one_of(names=self._catalog.items[hook]))
        return found

    def _queue(self) -> Schema:
        found = self._with_plugins(QueueSection, "camora_queue_kinds", names=("kind",))
        found["properties"].pop("name", None)  # the table's own name
        return found

    def _tasks(self) -> Schema:
        found = self._table([TaskOptions], without=("name",))
        for option in self._catalog.items["camora_task_options"].values():
            told = {"description": option.help} if option.help else {}
            found["properties"][option.name] = {**schema_of_type(option.annotation), **told}
        return found

    def _used(self, hook: str) -> Schema:
        found = self._table([UseSection])
        own = {"type": "string", "pattern": ":", "description": "One of your own, as module:attribute."}
        _replace(found, "use", array_of(one_of(own, names=[*self._catalog.items[hook], "..."])))
        return found

    def _extensions(self) -> Schema:
        """A table of tables; one that has no settings has none here either."""
        classes = {name: found.settings for name, found in self._catalog.items["camora_extensions"].items()}
        return {
            "type": "object",
            "description": "Settings of extensions, by name; each is on where its plugin is installed.",
            "properties": {name: self._table([cls]) for name, cls in sorted(classes.items()) if cls is not None},
            "additionalProperties": False,
        }

    def _schedule(self) -> Schema:
        found = self._table([ScheduleSection])
        triggers = self._catalog.items["camora_triggers"]
        calendar, parts = self._table([triggers["calendar"].settings]), self._table([triggers["every"].settings])
        _replace(found, "calendar", calendar)
        _replace(found, "every", {"anyOf": [schema_of_type(Duration), parts]})
        chosen: Schema = {"type": "object", "properties": {"use": one_of(names=triggers)}}
        _replace(found, "trigger", chosen if self._partial else {**chosen, "required": ["use"]})
        return found


def _replace(table: Schema, key: str, schema: Schema) -> None:
    """Another schema for one of the table's keys; what is told of it stays."""
    told = {name: text for name, text in table["properties"][key].items() if name in ("description", "default")}
    table["properties"][key] = {**schema, **told}


def _by_name(table: Schema, text: str) -> Schema:
    return {"type": "object", "description": text, "additionalProperties": table}


def _either(one: Schema, other: Schema) -> Schema:
    return one if one == other else {"anyOf": [one, other]}


def _described(schema: Schema, text: str | None, field: attrs.Attribute[Any], kinds: Mapping[str, Any]) -> Schema:
    default = plain_default(field, kinds.get(field.name, Any))
    told = {"description": text} if text else {}
    return {**schema, **told} if default is None else {**schema, **told, "default": default}


def _classes(catalog: Catalog, hook: str) -> list[type[Any]]:
    classes = (provider.settings for provider in catalog.items[hook].values())
    return list(dict.fromkeys(cls for cls in classes if cls is not None))
