"""Types of other libraries: a plugin converts them, and the core does not know the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest
from camora import BaseTask, Camora, Provider, hookimpl, plugins
from camora.errors import ConfigurationError, PayloadError, PluginLoadError
from camora.interfaces import Misfit, OtherTypes, TypeSupport
from camora.plugin_check import check
from camora.plugins import Source


class Point(msgspec.Struct):
    x: int
    box: Box | None = None
    """An attrs class, which msgspec would take apart by itself; here the core is asked."""


@attrs.define
class Box:
    size: int
    point: Point | None = None


class StructTypes(TypeSupport):
    """Structs, by what msgspec knows; what is inside of them, by what the core knows."""

    def knows(self, annotation: Any) -> bool:
        return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)

    def structurer(self, annotation: Any, others: OtherTypes) -> Callable[[Any], Any]:
        def structure(data: Any) -> Any:
            def inside(kind: Any, value: Any) -> Any:
                return others.structurer(kind)(value)

            try:
                return msgspec.convert(data, annotation, dec_hook=inside)
            except msgspec.ValidationError as error:
                why, _, where = str(error).partition(" - at `$")
                if isinstance(error.__cause__, Misfit):
                    places = [(f"{where[:-1]}{spot}", why) for spot, why in error.__cause__.places]
                    raise Misfit(places) from error
                raise Misfit([(where[:-1], why)]) from error

        return structure

    def unstructurer(self, annotation: Any, others: OtherTypes) -> Callable[[Any], Any]:
        def unstructure(value: Any) -> Any:
            if not isinstance(value, annotation):
                raise Misfit([("", f"expected {annotation.__name__}, got {type(value).__name__}")])
            return {
                field.name: others.unstructurer(field.type)(getattr(value, field.name))
                for field in msgspec.structs.fields(annotation)
            }

        return unstructure


@hookimpl
def camora_types() -> list[Provider[TypeSupport]]:
    return [Provider("structs", lambda _: StructTypes(), help="structs")]


SOURCE = Source(
    name="structs", distribution="local", version="", load=lambda: type("module", (), {"camora_types": camora_types})
)
VALUES: list[tuple[Any, Any]] = [
    (Point, Point(1)),
    (list[Point], [Point(1), Point(2)]),
    (dict[str, Point | None], {"a": Point(1), "b": None}),
    (Point | Box, Point(1)),
    (Box, Box(1, Point(2))),
    (Point, Point(1, Box(2))),
    (list[Box], [Box(1, Point(2, Box(3, Point(4))))]),
]


def make_app(*sources: Source) -> Camora:
    return Camora(catalog=plugins.load([*plugins.discover({}), *sources]))


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=lambda value: str(value)[:30])
async def test_values_travel_nested_in_anything(annotation: Any, value: Any) -> None:
    async def echo(value: Any) -> Any:
        return value

    echo.__annotations__ = {"value": annotation, "return": annotation}
    app = make_app(SOURCE)
    task = app.register(echo)
    async with app, app.worker():
        found = await (await task.dispatch(value)).result(60)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (Point, 3, "value: expected Point, got int"),
        (list[Point], [Point(1), 3], "value[1]: expected Point, got int"),
        (dict[str, list[Point]], {"a": [3]}, "value['a'][0]: expected Point, got int"),
        (Point, Point("x"), "value.x: Expected `int`, got `str`"),  # type: ignore[arg-type]
        (Box, Box(1, Point("x")), "value.point.x: Expected `int`, got `str`"),  # type: ignore[arg-type]
    ],
)
async def test_what_does_not_fit_is_named_by_its_path(annotation: Any, value: Any, text: str) -> None:
    def task(value: Any) -> None: ...

    task.__annotations__ = {"value": annotation}
    app = make_app(SOURCE)
    registered = app.register(task, name="task")
    async with app:
        with pytest.raises(PayloadError) as error:
            await registered.dispatch(value)
        assert str(error.value) == f"task: {text}"
        assert error.value.field == text.partition(":")[0]


async def test_without_the_plugin_such_a_parameter_is_nobodys() -> None:
    def task(value: Point) -> None: ...

    app = make_app()
    app.register(task, name="task")
    with pytest.raises(ConfigurationError, match="nobody provides Point"):
        async with app, app.worker():
            pass


def test_the_plugin_is_listed_and_found_sound() -> None:
    [info] = plugins.load([SOURCE]).plugins
    assert info.provides == {"camora_types": ("structs",)}
    assert check("structs", sources=[SOURCE]) == []


def test_a_plugin_that_makes_something_else_is_found_out() -> None:
    @hookimpl
    def camora_types() -> Any:
        return [Provider("odd", lambda _: object(), help="odd")]

    odd = Source(
        name="odd", distribution="local", version="", load=lambda: type("module", (), {"camora_types": camora_types})
    )
    [finding] = check("odd", sources=[odd])
    assert "makes a object, which is no TypeSupport" in finding.text
    with pytest.raises(PluginLoadError, match="expected a list of Provider"):

        @hookimpl(specname="camora_types")
        def camora_types() -> Any:
            return "structs"

        plugins.load(
            [
                Source(
                    name="x",
                    distribution="local",
                    version="",
                    load=lambda: type("m", (), {"camora_types": camora_types}),
                )
            ]
        )


class Record(BaseTask):
    """A task base of a library of its own: keeps what it is given in a mapping."""

    makes_fields = True

    def __init__(self, **fields: int) -> None:
        self.fields = fields


class RecordTypes(TypeSupport):
    def knows(self, annotation: Any) -> bool:
        return isinstance(annotation, type) and issubclass(annotation, Record)

    def structurer(self, annotation: Any, others: OtherTypes) -> Callable[[Any], Any]:
        check = others.structurer(dict[str, int])
        return lambda data: annotation(**check(data))

    def unstructurer(self, annotation: Any, others: OtherTypes) -> Callable[[Any], Any]:
        return lambda value: value.fields


class Sum(Record):
    async def execute(self) -> int:
        return sum(self.fields.values())


async def test_a_task_class_of_another_library_is_converted_as_a_whole() -> None:
    @hookimpl
    def camora_types() -> list[Provider[TypeSupport]]:
        return [Provider("records", lambda _: RecordTypes(), help="records")]

    source = Source(
        name="records", distribution="local", version="", load=lambda: type("m", (), {"camora_types": camora_types})
    )
    app = make_app(source)
    app.register(Sum)
    async with app, app.worker():
        assert await (await app.dispatch(Sum(a=1, b=2))).result(60) == 3
        assert await (await app.dispatch(Sum, a=1, b=3)).result(60) == 4
        assert await (await app.dispatch("Sum", c=5)).result(60) == 5
        with pytest.raises(PayloadError, match="Sum: .*expected int, got 'x'"):
            await app.dispatch(Sum(a="x"))  # type: ignore[arg-type]
