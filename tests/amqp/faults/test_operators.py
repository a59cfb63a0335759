"""What operators do to a server in use, and what it does by itself: alarms, connections closed, queues deleted."""

from __future__ import annotations

import asyncio

import pytest
from camora.errors import BrokerUnavailable, DispatchUncertain

from tests.amqp.faults.rig import LEASE, Rig, begun, eventually, next_finish
from tests.servers.rabbitmq_operator import ALARMS, alarm, close_connections, having


@pytest.mark.parametrize("kind", ALARMS)
async def test_an_alarm_stops_dispatching_in_words_until_it_is_over(rig: Rig, kind: str) -> None:
    async with rig.app() as app:
        for number in range(20):
            await rig.dispatch(app, "work", number=number)
        retried = await rig.dispatch(app, "flaky", number=1)
    with alarm(rig.server, kind):
        rig.faults += 1
        async with rig.app(patience=2.0) as app:
            # It has said nothing yet to this connection.
            with pytest.raises((BrokerUnavailable, DispatchUncertain), match=f"takes no messages.*low on {kind}"):
                await app.dispatch("work", number=1)
            # Now it has.
            with pytest.raises((BrokerUnavailable, DispatchUncertain), match=f"takes no messages.*low on {kind}"):
                await app.dispatch("work", number=2)
        # Who works may go on working; what would have to be stored waits.
        worker = rig.worker().ready()
        await eventually(lambda: rig.left() == 1, "the end of all but what is to be tried again")
        assert rig.finished() == 20
        async with rig.app() as app:
            late = asyncio.create_task(rig.load(app, 20))
            await eventually(lambda: rig.ran(retried), "the first try")
            await asyncio.sleep(2 * LEASE)  # longer than a lease: it stays where it is
            assert not late.done()
            rig.server.eval(ALARMS[kind][1])
            await late
    # Nothing was published in doubt: nothing is there twice.
    await rig.balance(duplicates=0)
    rig.alive()
    assert "lost its lease" not in worker.text()


async def test_an_alarm_in_the_middle_of_dispatching_loses_nothing(rig: Rig) -> None:
    worker = rig.worker().ready()
    async with rig.app() as app:
        for _ in range(2):
            loads = [asyncio.create_task(rig.load(app, 40)) for _ in range(3)]
            await next_finish(rig)
            with alarm(rig.server, "memory"):
                rig.faults += 1
                await asyncio.sleep(2.0)  # longer than anybody waits for a confirmation
            await asyncio.gather(*loads)
            assert await next_finish(rig) < 20
    # Doubles are those whose confirmation was not waited for, once each; and not one for each try.
    found = await rig.balance(duplicates=20)
    print(found.summary())
    rig.alive()
    assert "Traceback" not in worker.text()


async def test_connections_that_are_closed_again_and_again(rig: Rig) -> None:
    worker = rig.worker().ready()
    async with rig.app() as app:
        for _ in range(6):
            await rig.load(app, 20)
            close_connections(rig.server, "closed by an operator")
            rig.faults += 1
    await rig.balance(duplicates=6 * 10)
    rig.alive()
    assert "Traceback" not in worker.text(), worker.text()


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_new_jobs_run_after_their_queue_was_deleted_under_waiting_workers(rig: Rig, queue_type: str) -> None:
    """The server ends the consumer; the worker makes the queue again, and so does who dispatches."""
    rig.queue_type = queue_type
    worker = rig.worker().ready()
    async with rig.app() as app:
        await rig.load(app, 8)
        await rig.balance(duplicates=0)
        for turn in range(3):
            rig.delete("default")
            rig.faults += 1
            if queue_type == "quorum":
                # Made again before the server has told the worker, it loses what that acknowledges.
                await asyncio.to_thread(worker.wait_for, "delivers no more from queue", turn + 1)
            await rig.load(app, 8)
            await eventually(lambda: rig.idle(app.broker), "the new jobs")
            await eventually(lambda: rig.finished() >= len(rig.dispatched), "the new jobs' ends")
    await rig.balance(duplicates=3 * 5)
    rig.alive()


async def test_a_job_that_runs_while_its_queue_is_deleted(rig: Rig) -> None:
    """It was gone with the queue, as far as the server is concerned: it ends, and the worker goes on."""
    rig.worker().ready()
    async with rig.app() as app:
        await app.dispatch("hold", name="a")
        await begun(rig, "a")
        rig.delete("default")
        rig.faults += 1
        await rig.load(app, 8)
        await eventually(lambda: rig.finished() >= 8, "the work of others")
        (rig.folder / "release-a").touch()
        await rig.load(app, 8)
    await rig.balance(duplicates=5)
    rig.alive()


async def test_no_more_connections_than_an_operator_allows(rig: Rig) -> None:
    worker = rig.worker().ready()
    limit = f'rabbit_vhost_limit:parse_set(<<"{rig.vhost}">>, <<"{{\\"max-connections\\": COUNT}}">>, <<"camora">>)'
    async with rig.app() as app:
        await rig.load(app, 20)
        await eventually(lambda: rig.idle(app.broker), "the first jobs")
        rig.server.eval(limit.replace("COUNT", "0"))
        close_connections(rig.server, "closed by an operator")
        rig.faults += 1
        late = asyncio.create_task(rig.load(app, 20))
        await rig.noticed(worker)
        with pytest.raises(BrokerUnavailable, match="connection limit"):
            async with rig.client(patience=5.0):
                pass
        rig.server.eval(limit.replace("COUNT", "-1"))
        await late
    await rig.balance(duplicates=10)
    rig.alive()
    assert "Traceback" not in worker.text(), worker.text()


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
async def test_a_job_that_runs_for_longer_than_the_server_waits(rig: Rig, told: bool) -> None:
    """A worker that knows how long that is keeps it; one that does not loses it to the next, and goes on."""
    with having(rig.server, consumer_timeout=2500, channel_tick_interval=400, quorum_tick_interval=400):
        worker = rig.worker(url=rig.url(ack_timeout=2.5) if told else "").ready()
        async with rig.app() as app:
            if told:
                rig.noted(await app.dispatch("work_for", seconds=6.0))
            else:
                await app.dispatch("hold", name="a")
                await begun(rig, "a")
                await asyncio.to_thread(worker.wait_for, "lost its lease")
                await begun(rig, "a", 1)
                (rig.folder / "release-a").touch()
            await rig.load(app, 20)
            await eventually(lambda: rig.finished() >= 20, "the work of others")
        await rig.balance(duplicates=0 if told else 5)
    rig.alive()
    assert "Traceback" not in worker.text(), worker.text()
