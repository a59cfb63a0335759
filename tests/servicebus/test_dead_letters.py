"""Dead letters in the queues that the service keeps for them, on the emulator, which sees who locks what."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient
from camora.outcome import DeadLetter, ErrorInfo
from camora_servicebus.client import Connector
from camora_servicebus.dead_letters import ServiceBusDeadLetters
from camora_servicebus.handles import Handles
from camora_servicebus.letters import LONGEST, letter_of, told
from camora_servicebus.publishing import Publisher
from camora_servicebus.store import Store
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.servicebus import ServiceBusServer


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer, request: pytest.FixtureRequest) -> str:
    return shared.create_queue(f"q{abs(hash(request.node.name)) % 10**9}")


def url_of(server: ServiceBusServer) -> str:
    return f"servicebus://{server.key_name}:{server.key}@{server.host}:{server.port}?emulator=true&timeout=5s"


class Desk:
    """Letters with all that they need, as a broker has them."""

    def __init__(self, server: ServiceBusServer, *queues: str) -> None:
        self.server = server
        self.store = Store.of_url(url_of(server))
        self.store.seen.clear()
        self.store.seen.update(queues)
        self.handles = Handles(self.store, "here")
        self.connector = Connector(self.store)
        self.publisher = Publisher(self.connector, "here")
        self.letters = ServiceBusDeadLetters(self.store, self.handles, self.publisher)


@asynccontextmanager
async def desk_of(server: ServiceBusServer, *queues: str) -> AsyncIterator[Desk]:
    desk = Desk(server, *queues)
    try:
        yield desk
    finally:
        await desk.handles.close()
        await desk.publisher.close()
        await desk.connector.close()


async def bury(server: ServiceBusServer, queue: str, *letters: DeadLetter, **properties: Any) -> None:
    """As a worker does."""
    async with ServiceBusClient.from_connection_string(server.connection_string) as client:
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(
                [
                    ServiceBusMessage(
                        one.body, message_id=one.id, correlation_id=one.id, subject=one.task, **properties
                    )
                    for one in letters
                ]
            )
        async with client.get_queue_receiver(queue) as receiver:
            by_id = {letter.id: letter for letter in letters}
            while by_id:
                for message in await receiver.receive_messages(len(by_id), max_wait_time=5):
                    reason, description = told(by_id.pop(str(message.message_id)))
                    await receiver.dead_letter_message(message, reason=reason, error_description=description)


def letter(name: str, queue: str, **changes: Any) -> DeadLetter:
    return DeadLetter(id=name, queue=queue, task="a.task", body=f"body of {name}".encode(), **changes)


# What is written of them

_TEXTS = st.text(max_size=3000)
_ERRORS = st.builds(
    ErrorInfo, type=_TEXTS.filter(bool), text=_TEXTS, traceback=st.text(max_size=9000), timeout=st.booleans()
)
_LETTERS = st.builds(
    DeadLetter,
    id=st.text(min_size=1, max_size=300),
    queue=st.just("work"),
    task=st.text(max_size=300),
    reason=st.sampled_from(["failed", "undecodable", "poison"]),
    error=st.none() | _ERRORS,
    attempts=st.integers(0, 2**31),
    deliveries=st.integers(0, 2**31),
    died=st.integers(0, 2**42),
)


@given(_LETTERS)
def test_any_letter_fits_and_is_read_again_as_far_as_it_fits(letter: DeadLetter) -> None:
    reason, description = told(letter)
    assert len(reason) <= LONGEST
    assert len(description) <= LONGEST
    description.encode()
    found = read(reason, description, letter)
    assert (found.id, found.queue, found.task, found.reason) == (letter.id, letter.queue, letter.task, letter.reason)
    assert (found.attempts, found.deliveries, found.died) == (letter.attempts, letter.deliveries, letter.died)
    if letter.error is None:
        assert found.error is None
        return
    assert found.error is not None
    assert letter.error.type.startswith(found.error.type)
    assert found.error.timeout == letter.error.timeout
    assert len(letter.error.text) > 300 or found.error.text == letter.error.text


def read(reason: str, description: str, letter: DeadLetter) -> DeadLetter:
    message = SimpleNamespace(
        dead_letter_reason=reason, dead_letter_error_description=description, delivery_count=1,
        enqueued_time_utc=None, application_properties=None,
    )  # fmt: skip
    return letter_of(message, letter.queue, id=letter.id, task=letter.task, body=letter.body)


def test_what_people_read_of_it_says_what_happened_first() -> None:
    error = ErrorInfo(type="shop.SoldOut", text="no cups\nleft", traceback="Traceback …\n  in sell\n")
    reason, description = told(letter("j1", "work", error=error))
    lines = description.splitlines()
    assert reason == "failed"
    assert lines[0] == "shop.SoldOut: no cups"
    assert "  in sell" in lines
    assert lines[-1].startswith('{"camora":1,')
    found = read(reason, description, letter("j1", "work"))
    assert found.error == error


def test_of_a_long_traceback_the_end_stays() -> None:
    error = ErrorInfo(type="E", text="x", traceback="\n".join(f"line {number}" for number in range(5000)))
    found = read(*told(letter("j1", "work", error=error)), letter("j1", "work"))
    assert found.error is not None
    assert found.error.traceback.endswith("line 4999")
    assert len(found.error.traceback) > 3000


# In the service


async def test_a_letter_is_kept_whole_and_found_by_everybody(shared: ServiceBusServer, queue: str) -> None:
    error = ErrorInfo(type="camora.errors.DecodeError", text="é\x00\n'", traceback="Traceback …\n", timeout=True)
    kept = letter("j1", queue, reason="undecodable", error=error, attempts=3, deliveries=2, died=1_700_000_000_123)
    await bury(shared, queue, kept)
    async with desk_of(shared, queue) as desk:
        assert await desk.letters.get("j1") == kept
        assert list(await desk.letters.list()) == [kept]
        assert list(await desk.letters.list(queue="other")) == []
        assert await desk.letters.get("never-was") is None


async def test_looking_locks_nothing(shared: ServiceBusServer, queue: str) -> None:
    await bury(shared, queue, *[letter(f"j{number}", queue) for number in range(5)])
    before = len(shared.events("locked"))
    async with desk_of(shared, queue) as desk:
        assert len(await desk.letters.list()) == 5
    assert len(shared.events("locked")) == before


async def test_pages_of_several_queues_in_order_of_id(shared: ServiceBusServer, queue: str) -> None:
    other = shared.create_queue(f"{queue}-b")
    for name in (queue, other):
        await bury(shared, name, *[letter(f"{number:03}-{name}", name) for number in range(300)])
    async with desk_of(shared, queue, other) as desk:
        seen: list[str] = []
        while page := await desk.letters.list(limit=70, after=seen[-1] if seen else ""):
            seen += [one.id for one in page]
        assert seen == sorted(f"{number:03}-{name}" for number in range(300) for name in (queue, other))
        assert len(await desk.letters.list(queue=other, limit=1000)) == 300


async def test_one_from_the_midst_is_requeued_and_the_others_stay_as_they_were(
    shared: ServiceBusServer, queue: str
) -> None:
    await bury(shared, queue, *[letter(f"j{number:03}", queue) for number in range(250)])
    async with desk_of(shared, queue) as desk:
        before = list(await desk.letters.list(limit=1000))
        assert await desk.letters.requeue("j210", body=b"new") is True
        assert list(await desk.letters.list(limit=1000)) == [one for one in before if one.id != "j210"]
        assert await desk.letters.requeue("j210") is False
        # Nobody has to wait for the lock of one that was only in the way.
        assert await desk.letters.requeue("j000") is True
    # The last words of a receiver that is closed are read by the service a moment later.
    assert {one["delivery_count"] for one in shared.messages(f"{queue}/$DeadLetterQueue")} == {0}
    [again, other] = await received(shared, queue, 2)
    assert sorted([again.message_id, other.message_id]) == ["j000:1", "j210:1"]
    assert again.correlation_id == "j210"
    assert b"".join(again.body) == b"new"


async def received(server: ServiceBusServer, queue: str, count: int) -> list[Any]:
    found: list[Any] = []
    async with (
        ServiceBusClient.from_connection_string(server.connection_string) as client,
        client.get_queue_receiver(queue) as receiver,
    ):
        async with asyncio.timeout(60):
            while len(found) < count:
                found += await receiver.receive_messages(count - len(found), max_wait_time=5)
        for message in found:
            await receiver.complete_message(message)
    return found


async def test_a_job_that_dies_again_gets_another_message_id_each_time(shared: ServiceBusServer) -> None:
    queue = shared.create_queue("again", requires_duplicate_detection=True)
    await bury(shared, queue, letter("j1", queue))
    async with desk_of(shared, queue) as desk:
        for number in (1, 2, 3):
            assert await desk.letters.requeue("j1")
            async with (
                ServiceBusClient.from_connection_string(shared.connection_string) as client,
                client.get_queue_receiver(queue) as receiver,
            ):
                [message] = await receiver.receive_messages(1, max_wait_time=10)
                assert (message.message_id, message.correlation_id) == (f"j1:{number}", "j1")
                await receiver.dead_letter_message(message, reason="failed", error_description="again")
        assert (await desk.letters.get("j1")) is not None


async def test_two_who_requeue_the_same_send_it_once(shared: ServiceBusServer, queue: str) -> None:
    await bury(shared, queue, letter("j1", queue), letter("j2", queue))
    async with desk_of(shared, queue) as one, desk_of(shared, queue) as two:
        answers = await asyncio.gather(one.letters.requeue("j2"), two.letters.requeue("j2"))
    assert sorted(answers) == [False, True]
    assert [event["message_id"] for event in shared.events("stored", entity=queue)].count("j2:1") == 1


@pytest.mark.parametrize("how", ["cut", "silent"])
@pytest.mark.parametrize("fault", ["settle_lost", "settle_answer_lost"])
async def test_a_last_step_that_goes_wrong_neither_loses_it_nor_sends_it_twice(
    shared: ServiceBusServer, queue: str, fault: str, how: str
) -> None:
    await bury(shared, queue, letter("j1", queue), letter("j2", queue))
    shared.fault(fault, f"{queue}/$DeadLetterQueue", times=1, how=how)
    async with desk_of(shared, queue) as desk:
        assert await desk.letters.requeue("j1") is True
        assert [one.id for one in await desk.letters.list()] == ["j2"]
        shared.fault(fault, f"{queue}/$DeadLetterQueue", times=1, how=how)
        assert await desk.letters.purge() == 1
    assert [event["message_id"] for event in shared.events("stored", entity=queue)].count("j1:1") == 1


REQUEUE = """
import asyncio, sys
from tests.servicebus.test_dead_letters import Desk

class Server:
    key_name, key, host, port = sys.argv[1:5]

async def main():
    await Desk(Server, sys.argv[5]).letters.requeue("j1")

asyncio.run(main())
"""


async def test_killed_between_sending_and_taking_it_is_both_and_the_next_try_ends_it(
    shared: ServiceBusServer, queue: str
) -> None:
    await bury(shared, queue, letter("j1", queue))
    dead = f"{queue}/$DeadLetterQueue"
    shared.fault("settle_lost", dead, how="silent")
    arguments = [shared.key_name, shared.key, shared.host, str(shared.port), queue]
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REQUEUE, *arguments, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    async with asyncio.timeout(60):
        while not any(event["message_id"] == "j1:1" for event in shared.events("stored", entity=queue)):
            await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    shared.clear()
    async with desk_of(shared, queue) as desk:
        assert await desk.letters.get("j1") is not None
        shared.expire_locks(dead)  # after a minute, by itself
        assert await desk.letters.requeue("j1") is True
        assert await desk.letters.get("j1") is None
    # Under one id: a queue that detects duplicates takes it once.
    assert {message.message_id for message in await received(shared, queue, 2)} == {"j1:1"}


async def test_purging_by_queue_by_id_and_all(shared: ServiceBusServer, queue: str) -> None:
    other = shared.create_queue(f"{queue}-b")
    await bury(shared, queue, *[letter(f"a{number:03}", queue) for number in range(450)])
    await bury(shared, other, *[letter(f"b{number}", other) for number in range(3)])
    async with desk_of(shared, queue, other, "missing") as desk:
        assert await desk.letters.purge(ids=[]) == 0
        assert await desk.letters.purge(ids=["a001", "a440", "b1", "never-was"]) == 3
        assert await desk.letters.purge(queue=other, ids=["a002"]) == 0
        assert await desk.letters.purge(queue=queue) == 448
        assert [one.id for one in await desk.letters.list()] == ["b0", "b2"]
        assert await desk.letters.purge() == 2
        assert await desk.letters.purge() == 0


async def test_what_the_service_has_buried_says_why(shared: ServiceBusServer) -> None:
    queue = shared.create_queue("native", max_delivery_count=2)
    mortal = shared.create_queue("mortal", dead_lettering_on_message_expiration=True)
    async with ServiceBusClient.from_connection_string(shared.connection_string) as client:
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage(b"kills", message_id="k1", correlation_id="k1", subject="t"))
        async with client.get_queue_sender(mortal) as sender:
            await sender.send_messages(ServiceBusMessage(b"late", message_id="m1", time_to_live=timedelta(seconds=1)))
        async with client.get_queue_receiver(queue) as receiver:
            for _ in range(2):
                [message] = await receiver.receive_messages(1, max_wait_time=10)
                await receiver.abandon_message(message)
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage(b"odd", message_id="f1"))
        async with client.get_queue_receiver(queue) as receiver:
            [message] = await receiver.receive_messages(1, max_wait_time=10)
            await receiver.dead_letter_message(message, reason="ProcessingError", error_description="by another tool")
    async with desk_of(shared, queue, mortal) as desk:
        foreign, killed = await desk.letters.list(queue=queue)
        assert (killed.id, killed.reason, killed.task, killed.body) == ("k1", "poison", "t", b"kills")
        assert killed.deliveries == 2
        assert killed.error is not None
        assert killed.error.type == "MaxDeliveryCountExceeded"
        assert killed.died > 0
        assert (foreign.id, foreign.reason) == ("f1", "ProcessingError")
        assert foreign.error == ErrorInfo(type="ProcessingError", text="by another tool")
        assert await desk.letters.requeue("f1")
        async with asyncio.timeout(60):
            while (late := await desk.letters.get("m1")) is None:
                await asyncio.sleep(0.05)
        assert (late.reason, late.body) == ("expired", b"late")
    [again] = await received(shared, queue, 1)
    assert (again.message_id, b"".join(again.body)) == ("f1:1", b"odd")


async def test_a_letter_in_somebody_elses_hands_is_waited_for(shared: ServiceBusServer, queue: str) -> None:
    await bury(shared, queue, letter("j1", queue))
    async with (
        ServiceBusClient.from_connection_string(shared.connection_string) as client,
        client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver,
        desk_of(shared, queue) as desk,
    ):
        [message] = await receiver.receive_messages(1, max_wait_time=10)
        waiting = asyncio.ensure_future(desk.letters.requeue("j1"))
        while not waiting.done() and not _attached(shared, f"{queue}/$DeadLetterQueue", 2):
            await asyncio.sleep(0.01)
        await receiver.abandon_message(message)
        assert await waiting is True


def _attached(server: ServiceBusServer, entity: str, count: int) -> bool:
    return sum(event["address"] == entity for event in server.events("attaching")) >= count


async def test_whoever_goes_through_all_letters_looks_through_them_once(shared: ServiceBusServer, queue: str) -> None:
    await bury(shared, queue, *[letter(f"j{number:04}", queue) for number in range(1000)])
    async with desk_of(shared, queue) as desk, desk_of(shared, queue) as other:
        seen: list[str] = []
        attached = 0
        while page := await desk.letters.list(limit=100, after=seen[-1] if seen else ""):
            seen += [one.id for one in page]
            if not attached:
                # What goes away meanwhile is not shown, and does not end the list.
                assert await other.letters.purge(ids=[f"j{number:04}" for number in range(150, 420)]) == 270
                attached = len(shared.events("attaching"))
        assert seen == [f"j{number:04}" for number in range(1000) if not 150 <= number < 420]
        began = len(shared.events("locked", entity=f"{queue}/$DeadLetterQueue"))
        for name in seen[:50]:
            assert (await desk.letters.get(name)) is not None
            assert await desk.letters.requeue(name)
        assert await desk.letters.requeue("j0200") is False
        # Each was the oldest of all when it was taken: no other one was in the way.
        assert len(shared.events("locked", entity=f"{queue}/$DeadLetterQueue")) - began == 50
        # The same connections all the time: one to look and take, one to send.
        assert len(shared.events("attaching")) - attached <= 8
    assert shared.counts(queue)["active"] == 50
