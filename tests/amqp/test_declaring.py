"""What an app declares is made on the server, once for all who do; what is there already and different is named."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from camora import Camora
from camora.errors import ConfigurationError
from camora_amqp import Binding, Exchange, ExchangeType, Queue

from tests.amqp.test_topology import Seen, app_at, listening, tell
from tests.servers.rabbitmq import fresh_url, fresh_vhost

NEWS = Exchange("news", ExchangeType.TOPIC)


async def operator(url: str, queue: str, *, durable: bool = True, arguments: Mapping[str, Any] | None = None) -> None:
    """Somebody else makes a queue."""
    connection = await aio_pika.connect(url.partition("?")[0])
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=durable, arguments=dict(arguments or {}))


MISMATCHES = {
    "type": (
        Queue("mail", queue_type="classic"), Queue("mail"),
        r"x-overflow is none on the server, and 'reject-publish' here .*is it quorum here, and classic there\?",
    ),
    "other-type": (
        Queue("mail"), Queue("mail", queue_type="classic"),
        r"x-\S+ is '.*' on the server, and none here .*is it quorum there, and classic here\?",
    ),
    "durable": (
        Queue("mail", durable=False), Queue("mail", queue_type="classic"),
        r"the queue 'mail' exists with other properties: durable is false on the server, and true here",
    ),
    "limit": (
        Queue("mail", delivery_limit=3), Queue("mail", delivery_limit=7),
        r"x-delivery-limit is 3 on the server, and 7 here",
    ),
    "ttl": (
        Queue("mail", message_ttl=1), Queue("mail"),
        r"x-message-ttl is '?1000'? on the server, and none here",
    ),
    "argument": (
        Queue("mail"), Queue("mail", arguments={"x-max-in-memory-length": 5}),
        r"x-max-in-memory-length is none on the server, and '?5'? here",
    ),
    "exchange": (
        Queue("mail", bindings=[Binding(Exchange("news"))]), Queue("mail", bindings=[Binding(NEWS)]),
        r"the exchange 'news' exists with other properties: type is direct on the server, and topic here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISMATCHES)
async def test_what_exists_differently_is_named_with_both_sides_when_it_is_used(what: str) -> None:
    """When the app begins, when something is dispatched, and when a worker begins; and the server is left as it is."""
    there, here, text = MISMATCHES[what]
    url = fresh_vhost()
    before = app_at(url, queues=[there])
    async with before:
        pass
    begun = app_at(url, queues=[here])
    with pytest.raises(ConfigurationError, match=text):
        async with begun:
            pass
    later = app_at(url)
    task = tell(Seen(), later)
    async with later:
        later.broker.declare([here])
        with pytest.raises(ConfigurationError, match=text):
            await task.options(queue="mail").dispatch(1)
        with pytest.raises(ConfigurationError, match=text):
            async with later.worker(queues=["mail"]):
                pass
        assert await task.options(queue="other").dispatch(1), "what is not concerned goes on"
    seen = Seen()
    tell(seen, before_again := app_at(url, queues=[there]), queue=there.name)
    async with listening(before_again, "mail"):
        await before_again.tasks.by_name["tell"].dispatch(2)
        assert await seen.wait(1) == [("mail", 2)]


APP = """
from camora import Camora
from camora_amqp import Queue
app = Camora({url!r}, results=False)

@app.task(queue=Queue("mail", delivery_limit=7))
async def work() -> None: ...
"""


async def test_a_worker_process_ends_with_the_exit_code_of_a_wrong_configuration(tmp_path: Path) -> None:
    url = fresh_vhost()
    async with app_at(url, queues=[Queue("mail", queue_type="classic")]):
        pass
    (tmp_path / "mismatch.py").write_text(APP.format(url=url))
    (tmp_path / "unreadable.py").write_text("from camora import Camora\napp = Camora('amqp://localhost?tiemout=1')\n")
    codes = []
    for module, text in (
        ("mismatch", "is it quorum here, and classic there?"),
        ("unreadable", "did you mean 'timeout'?"),
    ):
        told = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "camora", "worker", f"{module}:app"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        words = " ".join((told.stdout + told.stderr).split())
        assert "Traceback" not in words and text in words, words
        codes.append(told.returncode)
    assert codes[0] == codes[1] != 0


async def test_many_declare_the_same_at_once() -> None:
    url = fresh_vhost()
    queue = Queue("mail", bindings=[Binding(NEWS, "a.*"), Binding(Exchange("all", "fanout"))])
    apps = [app_at(url, queues=[queue, "plain"]) for _ in range(8)]
    seen = [Seen() for _ in apps]
    tasks = [tell(one, app) for one, app in zip(seen, apps, strict=True)]

    async def use(app: Camora, task: Any) -> None:
        async with app:
            for delay in (0, 0.2):
                await task.options(exchange=NEWS, routing_key="a.b", delay=delay).dispatch(delay)

    await asyncio.gather(*(use(app, task) for app, task in zip(apps, tasks, strict=True)))
    last = Seen()
    tell(last, worker := app_at(url, queues=[queue]))
    async with listening(worker, "mail"):
        assert await last.wait(16) == [("mail", 0)] * 8 + [("mail", 0.2)] * 8


# What is somebody else's


async def test_a_queue_of_somebody_else_is_used_as_it_is() -> None:
    url, seen = fresh_vhost(), Seen()
    await operator(url, "theirs", arguments={"x-queue-type": "classic", "x-max-length": 1000, "x-queue-mode": "lazy"})
    queue = Queue("theirs", declare=False, bindings=[Binding(NEWS, "a.*")])
    app = app_at(url)
    task = tell(seen, app, queue=queue)
    async with listening(app, queue):
        await task.dispatch(1)
        await task.options(delay=0.2).dispatch(2)
        await task.options(exchange=NEWS, routing_key="a.b").dispatch(3)
        assert await seen.wait(3) == [("theirs", 1), ("theirs", 2), ("theirs", 3)]


async def test_without_that_word_it_is_a_mismatch() -> None:
    url = fresh_vhost()
    await operator(url, "theirs", arguments={"x-queue-type": "classic"})
    with pytest.raises(ConfigurationError, match="the queue 'theirs' exists with other properties"):
        async with app_at(url, queues=[Queue("theirs")]):
            pass


async def test_a_queue_of_somebody_else_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="there is no queue 'theirs' on the server.*declare=False"):
        async with app_at(fresh_vhost(), queues=[Queue("theirs", declare=False)]):
            pass


async def test_an_exchange_of_somebody_else_is_used_as_it_is() -> None:
    url, seen = fresh_vhost(), Seen()
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_exchange("theirs", "topic", durable=False, internal=False)
    app = app_at(url)
    app.broker.bind("mail", "theirs", "a.*")
    task = tell(seen, app, exchange="theirs", routing_key="a.b")
    async with listening(app, "mail"):
        await task.dispatch(1)
        assert await seen.wait(1) == [("mail", 1)]


# Declarations that cannot be


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"queue_type": "quorum", "durable": False}, "a quorum queue is always durable"),
        ({"queue_type": "quorum", "max_priority": 3}, "a quorum queue has no priorities"),
        ({"queue_type": "classic", "delivery_limit": 3}, "a classic queue has no delivery limit"),
        ({"durable": False, "delivery_limit": 3}, "a classic queue has no delivery limit"),
        ({"max_priority": 10}, "max_priority=10: a whole number from 1 to 9"),
        ({"prefetch": 0}, "prefetch=0: a whole number from 1 to 65535"),
        ({"message_ttl": "soon"}, "message_ttl='soon': seconds, or a text such as '10s'"),
        ({"message_ttl": -1}, "message_ttl=-1.0"),
        ({"idle_ttl": "0s"}, "idle_ttl=0.0"),
        ({"idle_ttl": "51d"}, "up to 50 days|up to 49 days"),
        ({"max_length": 0}, "max_length=0"),
    ],
    ids=["durable", "priorities", "limit", "fleeting", "ten", "none", "word", "negative", "zero", "long", "empty"],
)
def test_impossible_queues_are_refused_where_they_stand(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Queue("mail", **given)


def test_durations_may_have_units() -> None:
    queue = Queue("mail", message_ttl="1h30m", idle_ttl="10s")
    assert (queue.message_ttl, queue.idle_ttl) == (5400.0, 10.0)


async def test_two_declarations_in_one_app_are_one_error() -> None:
    app = app_at(fresh_url(), queues=[Queue("mail", prefetch=3)])
    with pytest.raises(ConfigurationError, match="queue 'mail' is declared twice"):
        tell(Seen(), app, queue=Queue("mail", prefetch=4))
