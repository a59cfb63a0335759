"""Workers over RabbitMQ die between publishing what follows a job and acknowledging it: the server knows no ids."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from camora import Status
from camora_workflows import Chain, Chord, Group
from processes import WorkerProcess, until

from tests.servers.fixtures import fresh_url as fresh_redis_url
from tests.servers.rabbitmq import fresh_url
from tests.workflows.test_faults import Flows, once, ran, start

__all__ = ["start"]  # a fixture


async def test_a_chain_that_travels_goes_on_and_who_dispatched_it_is_told(
    tmp_path: Path, start: Callable[..., WorkerProcess]
) -> None:
    """Nothing is recorded, so the first link runs again, and what follows it may."""
    url = fresh_url()
    flows = Flows(url)
    async with flows.app:
        job = await Chain([flows.start.s(), flows.member.s(), flows.body.si([1, 2])]).dispatch()
        assert start(tmp_path, url, SHOP_CRASH="published").end() == -signal.SIGKILL
        start(tmp_path, url)
        assert await job.result(timeout=60) == 3
        info = await job.info()
        assert (info.status, info.id) == (Status.SUCCEEDED, job.id)
        until(lambda: ran(tmp_path)["start-0"] == 2, "the second run of the first link")
    assert ran(tmp_path).keys() == {"start-0", "member-100", "body-0"}


@pytest.mark.parametrize(("store", "point"), [("redis", "published"), ("sqlite", "published"), ("redis", "marked")])
async def test_a_chord_with_a_store_beside_it_runs_no_member_and_no_body_twice(
    tmp_path: Path, start: Callable[..., WorkerProcess], store: str, point: str
) -> None:
    url = fresh_url()
    results = fresh_redis_url() if store == "redis" else f"sqlite:///{tmp_path}/results.db"
    flows = Flows(url, results)
    async with flows.app:
        job = await Chord(Group([flows.member.s(number) for number in range(4)]), flows.body.s()).dispatch()
        assert start(tmp_path, url, SHOP_RESULTS=results, SHOP_CRASH=point).end() == -signal.SIGKILL
        start(tmp_path, url, SHOP_RESULTS=results)
        assert await job.result(timeout=60) == 6
        # A copy of the body may still be on its way: what comes behind it in the queue has come after it.
        behind = Chain([flows.start.s()])
        assert await (await behind.dispatch()).result(timeout=60) == 100
    found = ran(tmp_path)
    # At the first point that is reached one other member may be running in the worker that dies.
    members = sum(found.pop(f"member-{number}") for number in range(4))
    assert members in (4, 5)
    assert found == once("body-0", "start-0")
