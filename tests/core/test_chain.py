"""The order of the chain: phases, then as listed, then before and after; and mistakes in it."""

from __future__ import annotations

from typing import Any

import pytest
from camora import Camora, Middleware
from camora.chain import Link, arrange
from camora.errors import ConfigurationError


def link(name: str, **attributes: Any) -> Link:
    return Link(type(name, (Middleware,), attributes)(), "app")


def names(links: list[Link]) -> list[str]:
    return [link.name for link in links]


def test_phases_come_first_then_the_order_of_listing() -> None:
    listed = [link("D"), link("C", phase="inner"), link("A", phase="outer"), link("E"), link("B", phase="trace")]
    assert names(arrange(listed)) == ["A", "B", "D", "E", "C"]


def test_before_and_after_move_only_what_they_must() -> None:
    listed = [link("A"), link("B"), link("C", before=["A"]), link("D", after=["E"]), link("E")]
    assert names(arrange(listed)) == ["B", "C", "A", "E", "D"]


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ([link("A", before=["B"]), link("B", before=["A"])], "go in a circle"),
        ([link("A", before=["Nobody"])], "A wants to stand before or after 'Nobody'; the chain has A"),
        ([link("A", phase="middle")], "A: unknown phase 'middle': one of outer"),
        ([Link("timing", "app")], "middleware 'timing' is no Middleware"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_refused(listed: list[Link], text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        arrange(listed)
    assert text in str(error.value)


def test_a_link_may_name_the_frameworks_own_and_the_call_stays_innermost() -> None:
    class Around(Middleware):
        before = ("Retries",)

    class Inside(Middleware):
        phase = "inner"

    names_ = [link.name for link in Camora(middleware=[Inside(), Around()]).chain()]
    assert names_.index("Around") < names_.index("Retries")
    assert names_[-2:] == ["Inside", "CallFunction"]


def test_the_framework_and_the_user_share_one_chain() -> None:
    class Timing(Middleware): ...

    class Outside(Middleware):
        phase = "outer"

    chain = Camora(middleware=[Timing(), Outside()]).chain()
    # Extensions that happen to be installed have links of their own.
    assert [(link.name, link.origin) for link in chain if link.origin in ("app", "camora")] == [
        ("Outside", "app"),
        ("Results", "camora"),
        ("Expiry", "camora"),
        ("Retries", "camora"),
        ("Timing", "app"),
        ("Limits", "camora"),
        ("Slots", "camora"),
        ("EarlyAck", "camora"),
        ("Timeouts", "camora"),
        ("Injection", "camora"),
        ("CallFunction", "camora"),
    ]
