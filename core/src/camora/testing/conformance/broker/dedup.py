"""Publishing is idempotent: by id, also after the job has finished, and by key."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.elsewhere import all_at_once
from camora.testing.conformance.making import ack, envelope, fresh_id, reject, release, retry

__all__ = ["DedupSuite"]


class DedupSuite(BrokerSuite):
    """Deduplication."""

    async def test_an_id_is_stored_once(self, rig: Rig) -> None:
        rig.needs("dedup")
        message = envelope(body=b"first")
        assert await rig.publish(message) == [message.id]
        assert await rig.publish(envelope(id=message.id, body=b"second")) == [message.id]
        consumer = await rig.consumer()
        assert (await rig.one(consumer)).body == b"first"
        await rig.nothing(consumer)

    async def test_an_id_twice_in_one_batch_is_stored_once(self, rig: Rig) -> None:
        rig.needs("dedup")
        message, other = envelope(), envelope()
        assert await rig.publish(message, other, message) == [message.id, other.id, message.id]
        consumer = await rig.consumer()
        assert [one.id for one in await rig.some(consumer, 2)] == [message.id, other.id]
        await rig.nothing(consumer)

    async def test_an_id_is_stored_once_while_it_runs(self, rig: Rig) -> None:
        rig.needs("dedup")
        message = envelope()
        await rig.publish(message)
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        await rig.publish(message)
        await rig.nothing(consumer)
        assert await rig.settle(consumer, ack(delivery)) == [True]
        await rig.nothing(consumer)

    async def test_an_id_is_not_stored_again_after_its_job_has_finished(self, rig: Rig) -> None:
        rig.needs("dedup")
        message = envelope()
        await rig.publish(message)
        consumer = await rig.consumer()
        await rig.settle(consumer, ack(await rig.one(consumer)))
        assert await rig.publish(message) == [message.id]
        await rig.nothing(consumer)

    async def test_an_id_among_the_dead_letters_is_not_stored_again(self, rig: Rig) -> None:
        rig.needs("dedup")
        message = envelope()
        await rig.publish(message)
        consumer = await rig.consumer()
        await rig.settle(consumer, reject(await rig.one(consumer)))
        assert await rig.publish(message) == [message.id]
        await rig.nothing(consumer)
        assert await rig.broker.dead_letters.get(message.id) is not None

    async def test_many_threads_that_publish_one_id_store_it_once(self, rig: Rig) -> None:
        rig.needs("dedup")
        ids = [fresh_id() for _ in range(20)]

        async def publish() -> list[list[str]]:
            async with rig.twin_here() as twin:
                return [list(await twin.publish([envelope(id=job_id)])) for job_id in ids]

        for answers in await all_at_once(*[publish] * 4):
            assert answers == [[job_id] for job_id in ids]
        consumer = await rig.consumer()
        assert sorted(one.id for one in await rig.some(consumer, len(ids))) == sorted(ids)
        await rig.nothing(consumer)

    async def test_a_key_stands_for_its_unfinished_job(self, rig: Rig) -> None:
        rig.needs("dedup")
        first, second, other = envelope(key="k"), envelope(key="k"), envelope(key="other")
        assert await rig.publish(first) == [first.id]
        assert await rig.publish(second, other) == [first.id, other.id]
        consumer = await rig.consumer()
        assert [one.id for one in await rig.some(consumer, 2)] == [first.id, other.id]
        await rig.nothing(consumer)

    async def test_a_key_twice_in_one_batch_is_one_job(self, rig: Rig) -> None:
        rig.needs("dedup")
        first, second = envelope(key="k"), envelope(key="k")
        assert await rig.publish(first, second) == [first.id, first.id]
        consumer = await rig.consumer()
        await rig.one(consumer)
        await rig.nothing(consumer)

    async def test_a_key_stays_taken_while_its_job_runs_is_released_and_is_retried(self, rig: Rig) -> None:
        rig.needs("dedup")
        first = envelope(key="k")
        await rig.publish(first)
        consumer = await rig.consumer()
        for give_back in (release, lambda delivery: retry(delivery, changes={"key": "k"})):
            delivery = await rig.one(consumer)
            assert await rig.publish(envelope(key="k")) == [first.id]
            assert await rig.settle(consumer, give_back(delivery)) == [True]
            assert await rig.publish(envelope(key="k")) == [first.id]
        assert await rig.settle(consumer, ack(await rig.one(consumer))) == [True]
        await rig.nothing(consumer)

    async def test_a_key_is_free_once_its_job_has_finished(self, rig: Rig) -> None:
        rig.needs("dedup")
        first, second = envelope(key="k"), envelope(key="k")
        await rig.publish(first)
        consumer = await rig.consumer()
        await rig.settle(consumer, ack(await rig.one(consumer)))
        assert await rig.publish(second) == [second.id]
        assert (await rig.one(consumer)).id == second.id

    async def test_a_key_is_free_once_its_job_has_failed(self, rig: Rig) -> None:
        rig.needs("dedup")
        first, second = envelope(key="k"), envelope(key="k")
        await rig.publish(first)
        consumer = await rig.consumer()
        await rig.settle(consumer, reject(await rig.one(consumer)))
        assert await rig.publish(second) == [second.id]
        assert (await rig.one(consumer)).id == second.id

    async def test_a_key_is_free_once_its_job_was_cancelled(self, rig: Rig) -> None:
        rig.needs("dedup")
        rig.needs("cancel")
        first, second = envelope(key="k", key_ttl=0.0), envelope(key="k")
        await rig.publish(first)
        await rig.broker.queues.cancel(first.id)
        assert await rig.publish(second) == [second.id]

    async def test_a_key_stays_taken_for_its_key_ttl_and_no_longer(self, rig: Rig) -> None:
        rig.needs("dedup")
        first = envelope(key="k", key_ttl=self.lease)
        lasting = envelope(key="lasting", key_ttl=3600.0)
        await rig.publish(first, lasting)
        consumer = await rig.consumer()
        await rig.settle(consumer, *map(ack, await rig.some(consumer, 2)))
        assert await rig.publish(envelope(key="k", key_ttl=self.lease)) == [first.id]
        await rig.nothing(consumer, wait=self.lease * 1.5)
        second = envelope(key="k")
        assert await rig.publish(second, envelope(key="lasting")) == [second.id, lasting.id]

    async def test_many_threads_that_publish_one_key_agree_on_one_job(self, rig: Rig) -> None:
        rig.needs("dedup")
        keys = [f"key-{number}" for number in range(20)]

        def publisher() -> Callable[[], Coroutine[Any, Any, list[str]]]:
            async def publish() -> list[str]:
                async with rig.twin_here() as twin:
                    return [(await twin.publish([envelope(key=key)]))[0] for key in keys]

            return publish

        answers = await all_at_once(*[publisher() for _ in range(4)])
        assert all(answer == answers[0] for answer in answers)
        consumer = await rig.consumer()
        assert sorted(one.id for one in await rig.some(consumer, len(keys))) == sorted(answers[0])
        await rig.nothing(consumer)
