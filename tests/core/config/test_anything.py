"""Whatever stands in a file or in the environment: it is read, or told with its place; never a traceback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tomlkit
from camora import plugins
from camora.config import app_arguments, read
from camora.config.effective import effective
from camora.config.locate import KeyPath, locate
from camora.config.reading import SECTIONS
from camora.config.schema import schema_of
from camora.config.writing import as_toml
from camora.errors import SettingsError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.core.config.test_documentation import keys_of

CATALOG = plugins.load()
SCHEMA = schema_of(CATALOG)
KEYS = sorted({*keys_of(SCHEMA), *SECTIONS, "nonsense", "env", "file", "kind", "a b", "shop:*", "prod"})
LINE = re.compile(r"camora\.toml:\d+:\d+: |CAMORA_[A-Z_]*: |profile 'prod': ")

TEXTS = """
30s|0|-1|json|memory://|sqlite:///x.db|sqlite:///x.db?y=1|nowhere|10MB|5/m|a:b|${X}|${Y:-7}|${|$${|* * * * *|tasks
Europe/Paris|thread|durable|logging|...|mon|true|no|2030-01-01T00:00:00Z|{x}||1e400|\u00e9\u00e9|a, b
"""
texts = st.sampled_from(re.split(r"[|\n]", TEXTS))
scalars = st.one_of(
    texts, st.integers(-(2**70), 2**70), st.booleans(), st.floats(), st.datetimes(), st.dates(), st.times()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


def tables(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Tables whose keys are known, and whose values are mostly of a kind that somebody would write there."""
    known = schema.get("properties")
    if known is None:
        inner = schema.get("items") or schema.get("additionalProperties")
        if not isinstance(inner, dict) or not inner.get("properties"):
            return values
        names = st.sampled_from(["one", "two", "a b", "shop:*"])
        many = (
            st.lists(tables(inner), max_size=3)
            if "items" in schema
            else st.dictionaries(names, tables(inner), max_size=3)
        )
        return many | values
    picked = {name: tables(table) | likely(table) for name, table in known.items()}
    return st.fixed_dictionaries({}, optional={**picked, "nonsense": values})


def likely(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "default" in schema:
        return st.just(schema["default"])
    choices = [choice for part in schema.get("anyOf", ()) for choice in part.get("enum", ())]
    return st.sampled_from(choices) if choices else scalars


documents = st.dictionaries(st.sampled_from([*SECTIONS, *KEYS]), values, max_size=4) | tables(SCHEMA)
variables = st.dictionaries(
    st.lists(
        st.sampled_from([key.upper().replace(" ", "_") for key in KEYS if ":" not in key]), min_size=1, max_size=3
    ).map(lambda parts: f"CAMORA_{'__'.join(parts)}"),
    texts | st.sampled_from(["[1]", "{ a = 1 }", "1", '["..."]', "inf", "nan"]),
    max_size=3,
)


def everywhere(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, item in items for inner in everywhere(item, (*path, key)))]


@settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(documents, variables, st.sampled_from([None, "prod"]))
@example({"retry": {"retry_policy": {"max_tries": 1}}}, {}, None)
@example({"schedules": [{"key": "k", "task": "t", "calendar": {"months": {}}}]}, {}, None)
@example({"worker": {"lease": 10**400}}, {}, None)
@example({}, {"CAMORA_APP__A_B": ""}, None)
@example({"tasks": {"one": {"exchange": {}, "topic": {}}}}, {}, None)
@example({"app": "$${"}, {"CAMORA_NAME": "${HOME}"}, None)
def test_anything_is_read_or_told(
    folder: Path, document: dict[str, Any], environ: dict[str, str], profile: str | None
) -> None:
    text = tomlkit.dumps(document)
    file = folder / "camora.toml"
    file.write_text(text)
    assert set(locate(text)) == set(everywhere(document)[1:])
    try:
        found = read(file, environ={**environ, "X": "9"}, profile=profile, catalog=CATALOG)
        app_arguments(found)
    except SettingsError as error:
        wrong = [problem for problem in error.problems if not LINE.match(problem)]
        if wrong or not error.problems:
            raise AssertionError(wrong) from error
        return
    file.write_text(as_toml(effective(found), origins=True))
    again = read(file, environ={"X": "9"}, catalog=CATALOG)
    assert (again.worker, again.settings, again.queues) == (found.worker, found.settings, found.queues)
