"""What type checkers see of compositions; this file is checked by mypy and pyright, and never run."""

from __future__ import annotations

from typing import Any, assert_type

from camora import Camora, Job, Signature
from camora.dispatchable import Dispatchable, Partial
from camora_workflows import (
    Chain,
    Chord,
    FailedStep,
    Graph,
    Group,
    WorkflowJob,
    chain,
    chord,
    durable_sleep,
    group,
    step,
    wait_for_signal,
    workflow,
)

app = Camora()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
async def double(x: int) -> int:
    return 2 * x


@app.task
def shout(text: str, times: int = 1) -> str:
    return text * times


@app.task
def length(text: str) -> int:
    return len(text)


@app.task
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
async def alert(failed: FailedStep, who: str) -> None: ...


async def chains() -> None:
    assert_type(chain(add.s(1, 2)), Chain[int])
    assert_type(chain(add.s(1, 2), double.s()), Chain[int])
    assert_type(chain(shout.si("a"), length.s(), double.s(), add.s(1), double.s(), double.s()), Chain[int])
    assert_type(chain(add.s(1, 2), shout.si("done"), on_failure=alert.s("me"), on_success=double.s()), Chain[str])
    assert_type(chain(double.s(), add.s(1)), Partial[int, int])
    assert_type(double.s() >> add.s(1), Partial[int, int])
    assert_type(chain(add.s(1, 2), chain(double.s(), double.s())), Chain[int])
    assert_type(await chain(add.s(1, 2), double.s()).dispatch(), WorkflowJob[int])
    assert_type(chain(add.s(1, 2), double.s()).dispatch_sync(), WorkflowJob[int])
    assert_type(await (add.s(1, 2) >> double.s()).dispatch(), Job[int])

    chain(add.s(1, 2), shout.s())  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    chain(add.s(1, 2), double.s(), length.s())  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    add.s(1, 2) >> chain(shout.s(), length.s())  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]


async def groups() -> None:
    assert_type(group(add.s(i, i) for i in range(3)), Group[int])
    assert_type(group([add.s(1, 1), add.s(2, 2)]), Group[int])
    assert_type(group(add.s(1, 1), double.si(2)), Group[int])
    assert_type(group(double.s(), add.s(1)), Partial[int, list[int]])
    assert_type(add.s(1, 2) >> group(double.s(), add.s(1)) >> total.s(), Dispatchable[int])
    assert_type(await (await group(add.s(i, i) for i in range(3)).dispatch()).result(), list[int])
    assert_type(group(add.s(i, i) for i in range(3)) >> total.s(), Dispatchable[int])
    assert_type(double.map([1, 2]) >> total.s(), Dispatchable[int])
    assert_type(double.chunks([1, 2, 3], 2) >> total.s(), Dispatchable[int])

    group(shout.si("a"), shout.si("b")) >> total.s()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    shout.si("a") >> group(double.s(), add.s(1))  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]


async def chords() -> None:
    assert_type(chord([add.s(1, 1), add.s(2, 2)], total.s()), Chord[int])
    assert_type(chord((add.s(i, i) for i in range(3)), shout.si("done")), Chord[str])
    assert_type(chord(double.map([1, 2]), total.s()), Chord[int])
    assert_type(add.s(1, 2) >> chord([double.s(), add.s(1)], total.s()), Dispatchable[int])
    assert_type(await (await chord([add.s(1, 1)], total.s(), on_failure=alert.s("me")).dispatch()).result(), int)

    chord([shout.si("a")], total.s())  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def graphs() -> None:
    graph = Graph(on_failure=alert.s("me"))
    graph.add("a", add.s(1, 2)).add(
        "b", double.s(), after=["a"], on_failure=alert.si(FailedStep(job_id="", task=""), "me")
    )
    assert_type(await (await graph.dispatch()).result(), dict[str, Any])
    assert_type(graph.options(job_id="nightly"), Graph)


async def callbacks() -> None:
    signature = add.s(1, 2)
    signature.on_success = double.s()
    signature.on_failure = alert.s("me")
    assert_type(signature, Signature[int])
    assert_type(await signature.dispatch(), Job[int])


async def handles() -> None:
    job = workflow(app, "nightly")
    assert_type(job, WorkflowJob[Any])
    async for member in job.members(live=True):
        assert_type(member.attempts, int)


async def charge(order: str, cents: int) -> bytes:
    return order.encode()


async def steps() -> None:
    assert_type(await step("charge", charge, "order", 7), bytes)
    await durable_sleep(hours=24)
    assert_type(await wait_for_signal("approved", timeout=60, type=bool), bool)

    await step("charge", charge, 7, 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
