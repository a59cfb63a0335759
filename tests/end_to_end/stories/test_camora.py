"""The story of the namesake: classes with a validated payload, dispatched as objects, classes or names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import backoff
import pytest
from camora import BaseTask, Camora, RetryPolicy, Status, WorkerSettings, every
from camora.errors import JobFailed, PayloadError

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)


class EmailClient:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def send_email(self, recipient: str, content: str) -> None:
        self.sent.append((recipient, content))


CLIENT = EmailClient()
MADE: list[int] = []


def get_email_client() -> EmailClient:
    MADE.append(1)
    return CLIENT


class SendEmail(BaseTask):
    recipient: str
    content: str

    async def execute(self, email_client: EmailClient) -> None:
        email_client.send_email(self.recipient, self.content)


@pytest.fixture
def app(broker_url: str) -> Camora:
    CLIENT.sent.clear()
    MADE.clear()
    app = Camora(broker_url, dependencies=[get_email_client], logger=logging.getLogger("mine"))
    app.register(SendEmail)
    return app


async def test_a_task_class_is_dispatched_in_three_ways_and_shares_one_client(app: Camora) -> None:
    async with app, app.worker(settings=SOON):
        jobs = [
            await app.dispatch(SendEmail(recipient="kappa", content="1")),
            await app.dispatch(SendEmail, recipient="kappa", content="2"),
            await app.dispatch("SendEmail", recipient="kappa", content="3"),
        ]
        for job in jobs:
            await job.result(60)
    assert sorted(content for _, content in CLIENT.sent) == ["1", "2", "3"]
    assert len(MADE) == 1


async def test_a_payload_that_does_not_fit_is_named_and_kept_with_its_error(app: Camora) -> None:
    async with app, app.worker(settings=SOON):
        with pytest.raises(PayloadError, match="content"):
            await app.dispatch(SendEmail, recipient="kappa", content=3)
        job = await Camora(app.broker, results=app.results).dispatch("SendEmail", recipient="kappa")
        with pytest.raises(JobFailed, match="content"):
            await job.result(60)
        letter = await app.dead_letter(job.id)
    assert letter is not None
    assert (letter.task, letter.id, letter.attempts) == ("SendEmail", job.id, 0)  # never called
    assert letter.error is not None
    assert "content" in letter.error.text


def three_times(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Any decorator of coroutine functions is a policy."""

    async def again(*args: Any, **kwargs: Any) -> Any:
        for _ in range(2):
            try:
                return await function(*args, **kwargs)
            except OSError:
                continue
        return await function(*args, **kwargs)

    return again


@pytest.mark.parametrize(
    "policy",
    [
        backoff.on_exception(backoff.constant, OSError, max_tries=3, interval=0.01),
        three_times,
        RetryPolicy(max_tries=3, delay=0.01),
    ],
    ids=["backoff", "a decorator", "durable"],
)
async def test_retries_by_a_policy_of_the_app(broker_url: str, policy: Any) -> None:
    app = Camora(broker_url, retry_policy=policy)
    tries: list[int] = []

    class Flaky(BaseTask):
        async def execute(self) -> str:
            tries.append(1)
            if len(tries) < 3:
                raise OSError
            return "done"

    app.register(Flaky)
    async with app, app.worker(settings=SOON):
        assert await (await app.dispatch(Flaky())).result(60) == "done"
    assert len(tries) == 3


async def test_a_periodic_task(broker_url: str) -> None:
    app = Camora(broker_url)
    ran = asyncio.Event()

    @app.task
    async def ping() -> None:
        ran.set()

    app.schedule("ping", ping.s(), every(seconds=0.2))
    async with app, app.worker(settings=SOON):
        scheduler = app.make_scheduler()
        await scheduler.start()
        try:
            await asyncio.wait_for(ran.wait(), 60)
        finally:
            await scheduler.close()


async def test_app_start_runs_until_it_is_told_to_end(app: Camora) -> None:
    async with app:
        job = await app.dispatch(SendEmail(recipient="kappa", content="burst"))
        await app.start(burst=True, settings=SOON)
    async with app:
        assert await job.status() is Status.SUCCEEDED
