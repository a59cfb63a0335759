"""Compositions whose members come to all sorts of ends, and what is to be expected of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from camora import Camora
from camora.dispatchable import Dispatchable
from camora.outcome import Status
from camora_workflows.compose import Chain, Chord, Graph, Group

app = Camora("memory://", name="following")


@app.task(name="ok")
async def ok(value: Any = None) -> Any:
    """Succeeds."""


@app.task(name="bad")
async def bad(value: Any = None) -> Any:
    """Fails."""


@app.task(name="drop")
async def drop(value: Any = None) -> Any:
    """Is discarded."""


@app.task(name="late")
async def late(value: Any = None) -> Any:
    """Expires."""


@app.task(name="alert")
async def alert(value: Any = None) -> Any:
    """Runs on failure."""


@app.task(name="cheer")
async def cheer(value: Any = None) -> Any:
    """Runs on success."""


_ENDS = {"bad": Status.FAILED, "drop": Status.DISCARDED, "late": Status.EXPIRED}


def comes_to(task: str) -> Status:
    return _ENDS.get(task, Status.SUCCEEDED)


def followed(what: Any) -> Any:
    what.on_success, what.on_failure = cheer.s(), alert.s()
    return what


def oks(count: int) -> list[Any]:
    return [ok.s() for _ in range(count)]


def diamond(middle: Any) -> Graph:
    return (
        Graph()
        .add("a", ok.s())
        .add("b", ok.s(), after=["a"])
        .add("c", middle, after=["a"])
        .add("d", ok.s(), after=["b", "c"])
    )


# What is composed, the tasks that are run, and what the whole comes to.
STORIES: dict[str, tuple[Callable[[], Dispatchable[Any]], str, str]] = {
    "a chain": (lambda: followed(Chain([ok.s(), ok.s(), ok.s()])), "cheer ok ok ok", "succeeded"),
    "a chain that fails first": (lambda: followed(Chain([bad.s(), ok.s(), ok.s()])), "alert bad", "failed"),
    "a long chain that fails first": (
        lambda: followed(
            Chain([bad.s(), *[ok.s() for _ in range(4)], followed(ok.s()), ok.s(), Group([ok.s()]), ok.s()])
        ),
        "alert alert bad",
        "failed",
    ),
    "a chain that fails last": (lambda: followed(Chain([ok.s(), bad.s()])), "alert bad ok", "failed"),
    "a chain that is discarded": (lambda: followed(Chain([ok.s(), drop.s(), ok.s()])), "drop ok", "discarded"),
    "a chain that expires": (lambda: followed(Chain([late.s(), ok.s()])), "alert late", "expired"),
    "a signature that is followed": (lambda: followed(ok.s()), "cheer ok", "succeeded"),
    "a signature that fails": (lambda: followed(bad.s()), "alert bad", "failed"),
    "a group": (lambda: followed(Group([ok.s(), ok.s(), ok.s()])), "cheer ok ok ok", "succeeded"),
    "a group of which one fails": (lambda: followed(Group([ok.s(), bad.s(), ok.s()])), "alert bad ok ok", "failed"),
    "an empty group": (lambda: Chain([Group([]), ok.s()]), "ok", "succeeded"),
    "a chord": (lambda: followed(Chord(Group([ok.s(), ok.s()]), ok.s())), "cheer ok ok ok", "succeeded"),
    "a chord of which one fails": (lambda: followed(Chord(Group([ok.s(), bad.s()]), ok.s())), "alert bad ok", "failed"),
    "a fan-out in the middle": (
        lambda: followed(Chain([ok.s(), Group([ok.s(), Chain([ok.s(), ok.s()])]), ok.s()])),
        "cheer ok ok ok ok ok",
        "succeeded",
    ),
    "a fan-out that never opens": (
        lambda: followed(Chain([bad.s(), Group([followed(ok.s()), Chain([ok.s(), ok.s()])]), ok.s()])),
        "alert alert bad",
        "failed",
    ),
    "a fan-out with an empty group in it": (
        lambda: Chain([ok.s(), Group([Chain([Group([]), ok.s()]), ok.s()]), ok.s()]),
        "ok ok ok ok",
        "succeeded",
    ),
    "a fan-out in a fan-out": (
        lambda: Chain([ok.s(), Group([Chain([ok.s(), Group([ok.s(), ok.s()])]), Group([ok.s()])])]),
        "ok ok ok ok ok",
        "succeeded",
    ),
    "a diamond": (lambda: followed(diamond(ok.s())), "cheer ok ok ok ok", "succeeded"),
    "a diamond with a side that fails": (lambda: followed(diamond(bad.s())), "alert bad ok ok", "failed"),
    "what follows what follows": (
        lambda: Chain([bad.s()], on_failure=Chain([alert.s(), Group([ok.s(), ok.s()])])),
        "alert bad ok ok",
        "failed",
    ),
    "what follows is a group": (
        lambda: Chain([bad.s()], on_failure=Group([alert.s(), alert.si()])),
        "alert alert bad",
        "failed",
    ),
    "what follows is a group and not needed": (
        lambda: Chain([ok.s()], on_failure=Group([alert.s(), alert.si()])),
        "ok",
        "succeeded",
    ),
}
