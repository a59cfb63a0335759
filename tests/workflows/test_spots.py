"""What cannot travel is refused at dispatch, and the error says which member of what it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from camora import Camora
from camora.errors import EncodeError, MessageTooLarge, PayloadError
from camora_workflows import Graph, chain, chord, group

app = Camora("memory://", name="spots")


@app.task(name="add")
async def add(x: int, y: int) -> int:
    return x + y


@app.task(name="load")
async def load(what: object, more: object = None) -> object:
    return what


@app.task(name="total")
async def total(values: list[Any], more: object = None) -> int:
    return len(values)


NEVER = object()
REFUSED = "a builtins.object cannot be encoded"
PLACES: dict[str, Callable[[], Any]] = {
    f"step 2 of a chain: load: more: {REFUSED}": lambda: chain(add.s(1, 2), load.s(NEVER)),
    f"member 4 of a group: load: what: {REFUSED}": lambda: group(load.s(n if n != 3 else NEVER) for n in range(9)),
    f"item 3 of a map: load: what: {REFUSED}": lambda: load.map([0, 1, NEVER]),
    f"chunk 2 of a map: load: args[0][1]: {REFUSED}": lambda: load.chunks([0, 1, 2, NEVER, 4], 2),
    f"node 'b' of a graph: load: what: {REFUSED}": lambda: Graph().add("a", add.s(1, 2)).add("b", load.si(NEVER)),
    f"on_failure of a chain: load: what: {REFUSED}": lambda: chain(add.s(1, 2), on_failure=load.si(NEVER)),
    f"on_success of add in step 1 of a chain: load: more: {REFUSED}": lambda: chain(followed(), add.s(3)),
    f"member 2 of a group in the header of a chord: load: what: {REFUSED}": (
        lambda: chord([load.s(1), load.s(NEVER)], total.s())
    ),
    f"the body of a chord: total: more: {REFUSED}": lambda: chord([load.s(1)], total.s(NEVER)),
    f"step 2 of a chain in member 1 of a group in step 2 of a chain: load: more[0]: {REFUSED}": (
        lambda: chain(add.s(1, 2), group(chain(add.s(1), load.s([NEVER])), add.s(2)))
    ),
}


def followed() -> Any:
    signature = add.s(1, 2)
    signature.on_success = load.s(NEVER)
    return signature


@pytest.fixture
async def opened() -> AsyncIterator[None]:
    async with app:
        yield


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("place", PLACES)
async def test_a_member_that_cannot_be_encoded_is_named_with_its_place(place: str) -> None:
    with pytest.raises(EncodeError) as raised:
        await PLACES[place]().dispatch()
    assert str(raised.value) == place
    assert f": {raised.value.path}: " in place
    store = await (await app.composer._host().stores()).workflows()  # type: ignore[attr-defined]
    assert list(await store.list()) == [], "nothing is left of it"


@pytest.mark.usefixtures("opened")
async def test_other_refusals_name_it_too_and_keep_what_they_carry() -> None:
    with pytest.raises(PayloadError) as payload:
        await group(add.s(1, 2), add.s(1, "two")).dispatch()
    assert str(payload.value).startswith("member 2 of a group: add: y: expected int, got 'two'")
    assert (payload.value.task, payload.value.field) == ("add", "y")
    with pytest.raises(MessageTooLarge) as large:
        await chain(add.s(1, 2), load.si("x" * 2_000_000)).dispatch()
    assert str(large.value).startswith("step 2 of a chain: load: the message has 2")
    assert large.value.size > large.value.limit
    with pytest.raises(EncodeError) as alone:
        whole = load.si(NEVER)
        whole.on_success = add.si(1, 2)
        await whole.dispatch()
    assert str(alone.value) == f"load: what: {REFUSED}", "it is the whole"


async def test_without_a_store_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = Camora("memory://", name="apart")
    for store in (apart.broker, apart.results):
        monkeypatch.setattr(type(store), "own_workflows", lambda self: None)

    @apart.task(name="load")
    async def load(what: object) -> object:
        return what

    async with apart:
        with pytest.raises(EncodeError, match=f"^step 3 of a chain: load: what: {REFUSED}$"):
            await chain(load.s(1), load.s(), load.si(NEVER)).dispatch()
