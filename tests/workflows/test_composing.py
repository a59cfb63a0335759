"""Putting compositions together and compiling them to nodes: pure, nothing is sent or stored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NewType, Optional

import attrs
import pytest
from camora import Camora, Failure
from camora.errors import ConfigurationError, DispatchError, PayloadError
from camora.interfaces import START
from camora_workflows import Chain, FailedStep, Graph, chain, chord, group
from camora_workflows.compiling import Compiler, Draft
from camora_workflows.fitting import fits
from camora_workflows.plan import Input, Kind
from hypothesis import given
from hypothesis import strategies as st

app = Camora(name="composing")


@app.task(name="make")
def make(*args: Any) -> Any:
    return args


@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="double")
def double(x: int) -> int:
    return 2 * x


@app.task(name="shout")
def shout(text: str) -> str:
    return text.upper()


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="quiet")
def quiet() -> None: ...


@app.task(name="alert")
def alert(failed: FailedStep) -> None: ...


def compiled(what: Any) -> tuple[list[Draft], int]:
    compiler = Compiler(what, app)
    drafts = list(compiler.drafts())
    return drafts, compiler.plan.result


# An abstract machine for nodes, and a plain interpreter of compositions: both come to the same.


class Machine:
    """Says what nodes come to where each job returns its own arguments."""

    def __init__(self, drafts: list[Draft]) -> None:
        self.by_index = {draft.index: draft for draft in drafts}
        self.fed_by: dict[int, list[int]] = {index: [] for index in self.by_index}
        assert [draft.index for draft in drafts] == list(range(len(drafts))), "recorded in the order of indexes"
        for draft in drafts:
            assert len(set(draft.feeds)) == len(draft.feeds)
            for fed in draft.feeds:
                self.fed_by[fed].append(draft.index)
        for draft in drafts:
            self.check(draft)
        self.values: dict[int, Any] = {}

    def sources(self, draft: Draft) -> list[int]:
        return list(draft.sources) or self.fed_by[draft.index]

    def check(self, draft: Draft) -> None:
        fed = self.sources(draft)
        assert sorted(fed) == sorted(self.fed_by[draft.index])
        assert (draft.gate is None) == bool(fed), "a node is fed, or stands behind a gate"
        assert draft.gate in (None, START) or self.by_index[draft.gate].kind is Kind.GATE
        assert draft.kind is not Kind.GATE or len(fed) == 1
        assert draft.kind is not Kind.JOB or len(fed) < 2 or draft.sources, "of several the order is always said"

    def value(self, index: int) -> Any:
        if index not in self.values:
            draft = self.by_index[index]
            found = {Kind.JOB: self.job, Kind.JOIN: self.join, Kind.GATE: self.gate}[draft.kind]
            self.values[index] = found(draft)
        return self.values[index]

    def job(self, draft: Draft) -> Any:
        assert draft.signature is not None
        if draft.items is not None:
            return [(item,) for item in draft.items]
        return (*self.given_to(draft), *draft.signature.args)

    def given_to(self, draft: Draft) -> tuple[Any, ...]:
        if draft.input is Input.NOTHING:
            return ()
        if draft.input is Input.ALL:
            return ([self.value(index) for index in self.sources(draft)],)
        assert draft.input is Input.RESULT
        [source] = self.sources(draft) if draft.gate is None else [draft.gate]
        return (self.value(source),)

    def gate(self, draft: Draft) -> Any:
        return self.value(self.sources(draft)[0])

    def join(self, draft: Draft) -> Any:
        found = [self.value(source) for source in self.sources(draft)]
        if draft.names:
            return dict(zip(draft.names, found, strict=True))
        return [item for items in found for item in items] if draft.flat else found


NOTHING = object()


def meaning(tree: Any, given: Any = NOTHING) -> Any:
    """What a description of a composition means."""
    kind, *rest = tree
    match kind:
        case "s":
            return (rest[0],) if given is NOTHING else (given, rest[0])
        case "si":
            return (rest[0],)
        case "map":
            return [(item,) for item in range(rest[0])]
        case "chunks":
            return [(item,) for item in range(rest[0])]
        case "chain":
            for step in rest[0]:
                given = meaning(step, given)
            return given
        case "group":
            return [meaning(member, given) for member in rest[0]]
        case "chord":
            return meaning(rest[1], [meaning(member, given) for member in rest[0]])
        case _:
            found: dict[str, Any] = {}
            for position, (node, after) in enumerate(rest[0]):
                others = [found[f"n{other}"] for other in after]
                came = given if not others else others[0] if len(others) == 1 else others
                found[f"n{position}"] = meaning(node, came)
            return found


def built(tree: Any) -> Any:
    """The composition that a description describes."""
    kind, *rest = tree
    match kind:
        case "s":
            return make.s(rest[0])
        case "si":
            return make.si(rest[0])
        case "map":
            return make.map(range(rest[0]))
        case "chunks":
            return make.chunks(iter(range(rest[0])), 3)
        case "chain":
            first, *others = map(built, rest[0])
            for other in others:
                first = first >> other
            return first
        case "group":
            return group(built(member) for member in rest[0])
        case "chord":
            return chord([built(member) for member in rest[0]], built(rest[1]))
        case _:
            graph = Graph()
            for position, (node, after) in enumerate(rest[0]):
                graph.add(f"n{position}", built(node), after=[f"n{other}" for other in after])
            return graph


jobs = st.tuples(st.sampled_from(["s", "si"]), st.integers(0, 99))
many = st.tuples(st.sampled_from(["map", "chunks"]), st.integers(0, 8))


def bigger(smaller: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(smaller, min_size=1, max_size=4)

    @st.composite
    def graphs(draw: Any) -> Any:
        nodes = draw(some)
        afters = [
            draw(st.lists(st.integers(0, position - 1), unique=True, max_size=3)) if position else []
            for position in range(len(nodes))
        ]
        return ("graph", list(zip(nodes, afters, strict=True)))

    return st.one_of(
        st.tuples(st.just("chain"), some),
        st.tuples(st.just("group"), st.lists(smaller, max_size=4)),
        st.tuples(st.just("chord"), st.lists(smaller, max_size=3), smaller),
        graphs(),
    )


@given(st.recursive(jobs | many, bigger, max_leaves=12))
def test_nodes_come_to_what_was_composed(tree: Any) -> None:
    drafts, result = compiled(built(tree))
    assert Machine(drafts).value(result) == meaning(tree)


# Shapes


def test_a_chain_is_its_steps_in_order() -> None:
    drafts, result = compiled(add.s(1, 2) >> double.s() >> shout.si("done"))
    assert [
        (draft.signature.task.name, draft.feeds, draft.gate, draft.input) for draft in drafts if draft.signature
    ] == [
        ("add", [1], START, Input.NOTHING),
        ("double", [2], None, Input.RESULT),
        ("shout", [], None, Input.NOTHING),
    ]
    assert result == 2


def test_a_group_begins_at_the_start_and_a_later_one_behind_a_gate() -> None:
    drafts, _ = compiled(group(add.s(1, 2), add.s(3, 4)) >> total.s() >> group(double.s(), double.s()))
    kinds = [(draft.kind, draft.gate, draft.input) for draft in drafts]
    assert kinds == [
        (Kind.JOIN, None, Input.NOTHING),
        (Kind.JOB, None, Input.RESULT),
        (Kind.GATE, None, Input.NOTHING),
        (Kind.JOIN, None, Input.NOTHING),
        (Kind.JOB, START, Input.NOTHING),
        (Kind.JOB, START, Input.NOTHING),
        (Kind.JOB, 2, Input.RESULT),
        (Kind.JOB, 2, Input.RESULT),
    ]


def test_callbacks_hang_on_the_last_node_and_are_no_part_of_the_result() -> None:
    signature = add.s(1, 2)
    signature.on_success = double.s()
    signature.on_failure = alert.s()
    drafts, result = compiled(chain(signature, double.s(), on_failure=alert.s() >> shout.si("told")))
    names = [
        (draft.signature.task.name, draft.side, draft.handler, draft.input, draft.feeds)
        for draft in drafts
        if draft.signature
    ]
    assert names == [
        ("add", False, False, Input.NOTHING, [1, 2, 3]),
        ("double", True, False, Input.RESULT, []),
        ("alert", True, True, Input.FAILURE, []),
        ("double", False, False, Input.RESULT, [4]),
        ("alert", True, True, Input.FAILURE, [5]),
        ("shout", True, False, Input.NOTHING, []),
    ]
    assert result == 3


def test_what_runs_on_failure_may_be_a_group() -> None:
    drafts, result = compiled(chain(add.s(1, 2), on_failure=group(alert.s(), shout.si("a"))))
    gate = next(draft for draft in drafts if draft.kind is Kind.GATE)
    assert (gate.handler, gate.side, result) == (True, True, 0)
    behind = [draft for draft in drafts if draft.gate == gate.index]
    assert [draft.input for draft in behind] == [Input.FAILURE, Input.NOTHING]
    assert all(draft.side for draft in drafts[1:])


def test_composing_further_changes_nothing_of_what_is_composed() -> None:
    first = add.s(1, 2) >> double.s()
    longer = first >> double.s() >> double.s()
    assert len(compiled(first)[0]) == 2
    assert len(compiled(longer)[0]) == 4
    assert isinstance(first, Chain)
    assert len(compiled(group(first, first) >> total.s())[0]) == 6


def test_a_list_that_changes_later_is_not_looked_at_again() -> None:
    members = [add.s(1, 2)]
    composed = group(members)
    members.append(add.s(3, 4))
    assert len(compiled(composed)[0]) == 2


def test_members_are_taken_one_at_a_time() -> None:
    taken = []

    def endless() -> Iterator[Any]:
        for number in itertools.count():
            taken.append(number)
            yield add.s(number, number)

    drafts = Compiler(group(endless()), app).drafts()
    assert [draft.index for draft in itertools.islice(drafts, 100)] == list(range(100))
    assert len(taken) <= 100


def test_an_item_may_be_nothing() -> None:
    assert Machine(compiled(make.map(iter([None, 1])))[0]).value(0) == [(None,), (1,)]


# What is refused, in words


def refused(what: Any, kind: type[Exception] = DispatchError) -> str:
    with pytest.raises(kind) as caught:
        compiled(what() if callable(what) else what)
    return str(caught.value)


def test_an_iterator_is_gone_through_once() -> None:
    composed = group(add.s(i, i) for i in range(3))
    assert len(compiled(composed)[0]) == 4
    assert "made of an iterator, which has been gone through" in refused(composed)


def test_graphs_that_make_no_sense() -> None:
    circle = (
        Graph().add("a", add.s(1, 1), after=["c"]).add("b", double.s(), after=["a"]).add("c", double.s(), after=["b"])
    )
    assert "wait for each other: 'a' after 'c' after 'b' after 'a'" in refused(circle)
    assert "'a' after 'a'" in refused(Graph().add("a", add.s(1, 1), after=["a"]))
    unknown = Graph().add("a", add.s(1, 1)).add("b", double.s(), after=["z"])
    assert "node 'b' comes after 'z', which is no node; there are 'a', 'b'" in refused(unknown)
    assert "has no nodes" in refused(Graph())
    with pytest.raises(ConfigurationError, match="node 'a' is there already"):
        Graph().add("a", add.s(1, 1)).add("a", add.s(1, 1))
    with pytest.raises(ConfigurationError, match="names 'a' twice"):
        Graph().add("b", add.s(1, 1), after=["a", "a"])
    with pytest.raises(ConfigurationError, match=r"give a list of names, after=\['a'\]"):
        Graph().add("b", add.s(1, 1), after="a")


def test_what_is_no_part_of_a_workflow() -> None:
    with pytest.raises(ConfigurationError, match=r"that is the task itself; give a signature: double.s\(…\)"):
        chain(add.s(1, 2), double)
    with pytest.raises(ConfigurationError, match=r"several at once are a group: group\(…\)"):
        chain(add.s(1, 2), [double.s()])
    with pytest.raises(ConfigurationError, match="a step of a chain is 3: give a signature"):
        chain(add.s(1, 2), 3)
    with pytest.raises(ConfigurationError, match="this chain has no steps"):
        chain()
    with pytest.raises(ConfigurationError, match="a member of a group is 1: give a signature"):
        compiled(group([add.s(1, 2), 1]))
    with pytest.raises(ConfigurationError, match="a member of a group is 1: give a signature"):
        group(iter([1])).dispatch_sync()  # type: ignore[list-item]
    with pytest.raises(DispatchError, match=r"group\(\) holds no signature that knows its app"):
        group().dispatch_sync()
    with pytest.raises(ConfigurationError, match="on_failure is 'alert': give a signature"):
        chain(add.s(1, 2), on_failure="alert")
    with pytest.raises(ConfigurationError, match="a whole number from 1"):
        double.chunks([1, 2], 0)
    with pytest.raises(ConfigurationError, match="give an iterable of items"):
        double.map(3)  # type: ignore[arg-type]


def test_what_people_write_who_come_from_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match=r"that is the task itself; give a signature: double.s\(…\) >> …"):
        double >> double.s()  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match="one after the other is a >> b"):
        add.s(1, 2) | double.s()  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=r"task itself; give a signature: task.options\(…\).s\(…\)"):
        chain(add.s(1, 2), double.options(delay=1))

    async def triple(x: int) -> int:
        return 3 * x

    with pytest.raises(ConfigurationError, match=r"that is a call, which runs here and now; .*: triple.s\(…\)"):
        chain(add.s(1, 2), triple(2))
    with pytest.raises(ConfigurationError, match="that is a plain function; declare it with @app.task"):
        chain(add.s(1, 2), lambda x: x)
    with pytest.raises(ConfigurationError, match=r"options\(delay=…\): the whole has one option, job_id"):
        chain(add.s(1, 2)).options(delay=3)  # type: ignore[call-arg]


def test_a_misspelt_callback_is_not_forgotten() -> None:
    with pytest.raises(AttributeError, match="on_failre"):
        add.s(1, 2).on_failre = alert.s()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="on_failre of .* what follows it is on_success or on_failure"):
        chain(add.s(1, 2)).on_failre = alert.s()  # type: ignore[attr-defined]


def test_options_that_members_cannot_have() -> None:
    assert "unique as it is" in refused(add.options(key="k").s(1, 2) >> double.s())
    assert "get their ids from it" in refused(add.options(job_id="x").s(1, 2) >> double.s())
    assert "in your transaction" in refused(add.options(connection=object()).s(1, 2) >> double.s())
    assert "give it to the whole" in refused(group(chain(add.s(1, 2)).options(job_id="x")))
    other = Camora(name="other")
    stranger = other.register(shout.function, name="stranger")
    found = refused(add.s(1, 2) >> stranger.si("a"))
    assert "stranger is a task of <Camora 'other'" in found
    assert "all tasks of a workflow are those of one app" in found


# Types


def test_types_that_cannot_fit_are_refused_with_both_names() -> None:
    text = refused(lambda: add.s(1, 2) >> shout.s(), PayloadError)  # type: ignore[operator]
    assert text.startswith("add comes to int, and shout, which follows, takes text: str.")
    assert "shout.si(…)" in text
    assert "comes to list[str], and total" in refused(lambda: group(shout.si("a")) >> total.s(), PayloadError)  # type: ignore[operator]
    assert "comes to list[int], and double" in refused(lambda: double.map([1]) >> double.s(), PayloadError)  # type: ignore[operator]
    assert "quiet comes to None" in refused(lambda: quiet.s() >> double.s(), PayloadError)  # type: ignore[operator]
    assert "takes no positional argument" in refused(lambda: add.s(1, 2) >> quiet.s(), PayloadError)
    several = Graph().add("a", add.s(1, 1)).add("b", add.s(1, 1)).add("c", double.s(), after=["a", "b"])
    assert "add and add comes to list[int], and double" in refused(several, PayloadError)
    wrong = chain(add.s(1, 2), on_failure=double.s())
    assert "double runs on_failure and gets a FailedStep first, and takes x: int" in refused(wrong, PayloadError)
    compiled(chain(add.s(1, 2), on_failure=alert.s()))


def test_a_failure_is_no_part_of_what_a_step_comes_to() -> None:
    async def count(text: str) -> int | Failure:
        return len(text) or Failure("nothing to count")

    counts: Any = app.register(count, name="count")
    compiled(chain(counts.s("a"), double.s()))
    assert "count comes to int, and shout" in refused(chain(counts.s("a"), shout.s()), PayloadError)
    compiled(add.s(1, 2) >> quiet.si())


@attrs.frozen
class Order:
    number: int


Cents = NewType("Cents", int)


@pytest.mark.parametrize(
    ("given", "wanted", "fit"),
    [
        (int, int, True),
        (int, float, True),
        (int, str, False),
        (str, int, False),
        (bool, int, True),
        (Cents, int, True),
        (Cents, str, False),
        (Annotated[int, "cents"], str, False),
        (Any, int, True),
        (int, Any, True),
        (int, object, True),
        (int, int | None, True),
        (int | None, int, True),
        (int | str, str, True),
        (int, str | bytes, True),
        (int, str | list[int], False),
        (None, int, False),
        (None, Optional[int], True),  # noqa: UP045 -- both ways of writing it
        (None, Any, True),
        (None, Order, True),
        (list[int], list[int], True),
        (list[int], list[str], False),
        (list[int], Sequence[float], True),
        (list[int], tuple[str, ...], False),
        (list[int], tuple[int, int], True),
        (tuple[int, str], list[int], False),
        (tuple[int, int], tuple[int, int, int], False),
        (list, list[int], True),
        (list[int], list, True),
        (list[int], int, False),
        (int, list[int], False),
        (list[Any], int, False),
        (list[list[int]], list[list[str]], False),
        (dict[str, int], dict[str, str], False),
        (dict[str, int], Mapping[str, float], True),
        (dict[str, int], int, False),
        (dict[str, int], list[int], False),
        (dict[str, Any], Order, True),
        (Order, dict[str, Any], True),
        (str, bytes, True),
        (bytes, str, True),
    ],
)
def test_only_what_cannot_fit_does_not(given: Any, wanted: Any, fit: bool) -> None:
    assert fits(given, wanted) is fit
