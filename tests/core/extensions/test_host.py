"""The app as an extension sees it."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from camora import BaseTask, Camora, Message, Middleware
from camora.dispatcher import NamedTask
from camora.errors import MessageTooLarge, PayloadError
from camora.interfaces import Host
from camora.signature import Signature

from tests.core.extensions.examples import Next, app_with


@attrs.frozen
class Point:
    x: int


class Stamping(Middleware):
    async def dispatch(self, message: Message, call_next: Any) -> Message:
        return await call_next(msgspec.structs.replace(message, headers={**message.headers, "stamp": "here"}))


def host_of(**keys: Any) -> tuple[Camora, Host]:
    extension = Next()
    return app_with(extension, **keys), extension.host


def test_a_message_may_leave_its_first_parameter_open() -> None:
    app, host = host_of()

    @app.task(name="two", key="{x}-{y}")
    async def two(x: int, y: Point = Point(0), *, z: str = "") -> None: ...

    @app.task(name="rest")
    async def rest(*items: int) -> None: ...

    @app.task(name="none")
    async def none(*, flag: bool = False) -> None: ...

    @app.register
    class Ship(BaseTask):
        order: int
        fast: bool = False

        async def execute(self) -> None: ...

    whole = host.message(two.s(1, Point(2)))
    assert (whole.kwargs, whole.key) == ({"x": 1, "y": {"x": 2}}, None)
    open_ = host.message(two.s(Point(2), z="a"), first=1)
    assert (open_.args, open_.kwargs) == ([], {"y": {"x": 2}, "z": "a"})
    # As it is filled where the job runs: what comes by position takes the first place that is free.
    parameters = app._binding.parameters_of(two)
    assert parameters.into([5], open_.kwargs) == ([], {"x": 5, "y": Point(2), "z": "a"})
    assert host.message(rest.s(1, 2), first=1).args == [1, 2]
    known = app._signature(Ship, (), {"fast": True})
    assert host.message(known, first=1).kwargs == {"fast": True}
    named: Any = NamedTask("elsewhere", app)
    assert host.message(Signature(named, (1,), {}), first=1).args == [1]

    for signature, text in [
        (two.s(1, 2, 3), r"result of the step before comes first, and then at most 1 positional, got 3"),
        (two.s(x=1), r"two: x: is given, and so is the result of the step before; make the signature with si\(…\)"),
        (none.s(), r"none: takes no result of the step before \(takes flag: bool\); make the signature with si\(…\)"),
        (two.s("no"), "two: y: "),
    ]:
        with pytest.raises(PayloadError, match=text):
            host.message(signature, first=1)
    with pytest.raises(PayloadError, match="two: x: is missing"):
        host.message(two.s())


async def test_middleware_sees_a_message_and_nothing_is_published() -> None:
    app, host = host_of(middleware=[Stamping()])

    @app.task(name="work")
    async def work(x: int) -> int:
        return x

    async with app:
        message = await host.pass_through(host.message(work.s(1)))
        assert message.headers == {"stamp": "here"}
        stores = await host.stores()
        assert await stores.broker.queues.find(message.id) is None
        [job_id] = await host.publish([host.envelope(message)])
        assert await stores.broker.queues.find(job_id) is not None
        assert await host.publish([host.envelope(message)]) == [job_id]
        await app.make_worker().run(burst=True)
        job = host.job(job_id, "work")
        assert await job.result(timeout=0) == 1


def test_values_are_what_the_task_says() -> None:
    app, host = host_of()

    @app.task(name="point")
    async def point() -> Point:
        return Point(1)

    assert host.value("point", b'{"x": 3}') == Point(3)
    assert host.value("nobody", b'{"x": 3}') == {"x": 3}
    assert host.task("nobody") is None
    assert host.task("point") is point
    assert host.port is app


def test_what_is_too_large_is_refused() -> None:
    app, host = host_of()

    @app.task(name="work")
    async def work(x: str) -> None: ...

    with pytest.raises(MessageTooLarge):
        host.envelope(host.message(work.s("x" * (app.settings.max_message_size + 1))))
