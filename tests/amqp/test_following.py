"""What follows a job: what becomes of it, and of what it is a part of, is told to whoever dispatched the first one."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from camora import Camora, Provider
from camora.interfaces import Ending, Extension, FollowUp, Host

from tests.core.extensions.examples import installed, offering
from tests.servers.rabbitmq import fresh_url

HEADER = "test-steps"
"""How many steps are still to come."""


class Steps(Extension):
    """After each step comes the next one, and the last one's record is that of the whole, too."""

    header = HEADER
    host: Host

    def attach(self, host: Host) -> None:
        self.host = host

    async def ended(self, endings: Sequence[Ending]) -> Sequence[FollowUp]:
        return [self._follow(ending) for ending in endings]

    def _follow(self, ending: Ending) -> FollowUp:
        message, record = ending.message, ending.record
        whole, _, step = message.id.partition(".")
        left = int(message.headers[HEADER])
        if not left:
            return FollowUp(records=(msgspec.structs.replace(record, id=f"{whole}-whole"),))
        assert record.value is not None
        task = self.host.task(message.task)
        assert task is not None
        signature = task.s(self.host.value(message.task, record.value))
        signature = signature.options(job_id=f"{whole}.{int(step) + 1}", headers={HEADER: str(left - 1)})
        return FollowUp(successors=(self.host.envelope(self.host.message(signature)),))


def shop(url: str) -> Any:
    """As another process would make it."""
    app: Any = Camora(url, catalog=installed(offering(Provider("steps", lambda _: Steps(), help="Test."))))

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    return app


async def test_results_of_successors_and_of_the_whole_come_to_who_dispatched_the_first() -> None:
    url = fresh_url()
    worker, app = shop(url), shop(url)
    async with app, worker, worker.worker():
        first = await app.tasks.by_name["double"].options(job_id="flow.0", headers={HEADER: "2"}).dispatch(1)
        assert await first.result(timeout=60) == 2
        assert await (await app.job("flow.1")).result(timeout=60) == 4
        assert await (await app.job("flow.2")).result(timeout=60) == 8
        assert await (await app.job("flow-whole")).result(timeout=60) == 8
