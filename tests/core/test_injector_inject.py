"""`inject()`: a default that says that a parameter is filled, not sent."""

from __future__ import annotations

import pytest
from camora import BaseTask, Camora, dependency, inject
from camora.dependencies import is_inject
from camora.errors import MissingDependency, PayloadError


class Client:
    pass


@pytest.fixture
def client() -> Client:
    return Client()


def test_the_default_is_told_from_others_and_says_what_it_is() -> None:
    assert is_inject(inject())
    assert not any(map(is_inject, (None, inject, 0)))
    assert repr(inject()) == "inject()"
    with pytest.raises(AttributeError, match="a direct call passes it itself"):
        inject().send()


async def test_a_parameter_with_it_is_filled_whatever_its_type(client: Client) -> None:
    app = Camora(dependencies=[client, dependency("dsn://", provides=str)])

    @app.task
    async def work(x: int, client: Client = inject(), dsn: str = inject()) -> list[str]:
        return [type(client).__name__, dsn, str(x)]

    assert await app.run_now(work.s(1)) == ["Client", "dsn://", "1"]
    async with app, app.worker():
        assert await (await work.dispatch(2)).result(60) == ["Client", "dsn://", "2"]


async def test_it_cannot_be_sent() -> None:
    app = Camora(dependencies=[dependency("dsn://", provides=str)])

    @app.task
    async def work(x: int, dsn: str = inject()) -> None: ...

    async with app:
        with pytest.raises(PayloadError, match="dsn: unknown argument"):
            await work.dispatch(1, dsn="mine")
        with pytest.raises(PayloadError, match="takes 1 positional"):
            await work.dispatch(1, "mine")


async def test_somebody_has_to_provide_it_though_its_type_could_travel() -> None:
    app = Camora()

    @app.task
    async def work(dsn: str = inject()) -> None: ...

    @app.register
    class Work(BaseTask):
        async def execute(self, client: Client = inject()) -> None: ...

    async with app:
        with pytest.raises(MissingDependency) as caught:
            async with app.worker():
                pass
    assert "nobody provides str for its parameter 'dsn'" in caught.value.problems[0]
    assert "nobody provides Client for its parameter 'client'" in caught.value.problems[1]


async def test_the_execute_of_a_class_gets_it(client: Client) -> None:
    app = Camora(dependencies=[client])

    @app.register
    class Work(BaseTask):
        x: int

        async def execute(self, client: Client = inject()) -> str:
            return f"{type(client).__name__} {self.x}"

    async with app, app.worker():
        assert await (await app.dispatch(Work(x=3))).result(60) == "Client 3"
