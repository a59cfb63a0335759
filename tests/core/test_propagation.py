"""Context variables that are to travel: which, whence, and at what cost."""

from __future__ import annotations

import contextvars
import decimal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest
from camora import propagation


class _Breaks:
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


@pytest.fixture
def home() -> Iterator[types.ModuleType]:
    """A module with variables of its own."""
    module = types.ModuleType("home_of_variables")
    for name in ("first", "second"):
        setattr(module, name, contextvars.ContextVar(name))
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_a_variable_of_a_module_travels_with_its_value(home: types.ModuleType) -> None:
    def sender() -> propagation.Carried:
        home.first.set({"request": 7})
        return propagation.capture()

    carried = contextvars.Context().run(sender)
    assert [item[:2] for item in carried] == [("home_of_variables", "first")]

    def receiver() -> Any:
        propagation.restore(carried)
        return home.first.get(), home.second.get("unset")

    assert contextvars.Context().run(receiver) == ({"request": 7}, "unset")


def test_what_has_no_home_or_does_not_pickle_stays(home: types.ModuleType) -> None:
    nowhere: contextvars.ContextVar[int] = contextvars.ContextVar("nowhere")

    def sender() -> propagation.Carried:
        nowhere.set(1)
        home.first.set(threading.Lock())
        home.second.set(_Breaks())
        return propagation.capture()

    assert contextvars.Context().run(sender) == ()


def test_the_standard_library_s_own_stay() -> None:
    def sender() -> propagation.Carried:
        decimal.getcontext().prec = 5
        return propagation.capture()

    assert contextvars.Context().run(sender) == ()


def test_a_module_imported_later_is_found(home: types.ModuleType) -> None:
    late = types.ModuleType("late_home")
    late.variable = contextvars.ContextVar("late")  # type: ignore[attr-defined]

    def sender() -> propagation.Carried:
        late.variable.set(1)
        return propagation.capture()

    context = contextvars.Context()
    assert context.run(sender) == ()
    sys.modules["late_home"] = late
    try:
        assert [item[:2] for item in context.run(propagation.capture)] == [("late_home", "variable")]
    finally:
        del sys.modules["late_home"]


def test_what_cannot_be_restored_is_left_out(home: types.ModuleType) -> None:
    def receiver() -> Any:
        propagation.restore(
            (("no_such_module", "x", b""), ("home_of_variables", "gone", b""), ("home_of_variables", "first", b"no"))
        )
        propagation.restore((("sys", "path", b"\x80\x04N."),))
        return home.first.get("unset")

    assert contextvars.Context().run(receiver) == "unset"


def test_modules_are_searched_once_for_each_variable(home: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    search = propagation._home_of
    monkeypatch.setattr(propagation, "_home_of", lambda variable: searched.append(variable) or search(variable))
    nowhere: contextvars.ContextVar[int] = contextvars.ContextVar("nowhere")

    def sender() -> None:
        home.first.set(1)
        nowhere.set(1)
        for _ in range(5):
            propagation.capture()

    contextvars.Context().run(sender)
    assert len(searched) == 2
    assert {*searched} == {home.first, nowhere}
