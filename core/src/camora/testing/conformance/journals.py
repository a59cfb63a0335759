"""The exam of a journal."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import pytest_asyncio

from camora.interfaces.journal import Journal
from camora.testing.conformance.elsewhere import all_at_once, elsewhere
from camora.testing.conformance.journal_machine import hunt_journals

__all__ = ["JournalConformance"]

LONG = 3600.0

ODD = ["a", "A", "a ", "ä", "a:b", "a{b}", "{a}", "a/b", "a/0", "a b", "a'b", 'a"b', "a%", "a_", "a\\b", "a*", "日本"]
"""Ids and names that a journal might take for one another, or for something else."""


async def claimed(journal: Journal, job_id: str, token: int, keep: float = LONG) -> dict[str, bytes]:
    """What an attempt that may begin is told."""
    entries = await journal.claim(job_id, token, keep)
    assert entries is not None, f"{token} was refused"
    return dict(entries)


@pytest.mark.asyncio
class JournalConformance:
    """Override `journal_factory`."""

    keep: float = 1.0
    """Seconds for which entries are kept whose end tests wait for."""
    patience: float = 30.0
    """Seconds after which what has not gone is taken for kept for ever."""
    races: int = 30
    """How often two write at once."""
    examples: int = 10
    """How many random stories are compared with the model."""

    @pytest.fixture
    def journal_factory(self) -> Callable[[], Journal]:
        """Makes an unopened journal without entries, on data of its own, each time it is called."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture journal_factory")

    @pytest_asyncio.fixture
    async def journal(self, journal_factory: Callable[[], Journal]) -> AsyncIterator[Journal]:
        """The journal under test, open."""
        journal = journal_factory()
        await journal.open()
        try:
            yield journal
        finally:
            await journal.close()

    # Entries

    async def test_of_an_unknown_job_there_is_nothing(self, journal: Journal) -> None:
        assert dict(await journal.read("never")) == {}
        assert await journal.forget(["never"]) == 0
        assert await journal.forget([]) == 0
        assert await claimed(journal, "new", 1) == {}

    async def test_what_was_entered_is_found(self, journal: Journal) -> None:
        await journal.claim("j", 1, LONG)
        assert await journal.write("j", 1, "charge", b"paid", LONG) == b"paid"
        assert await journal.write("j", 1, "empty", b"", LONG) == b""
        assert await journal.write("j", 1, "bytes", bytes(range(256)), LONG) == bytes(range(256))
        expected = {"charge": b"paid", "empty": b"", "bytes": bytes(range(256))}
        assert dict(await journal.read("j")) == expected
        assert await claimed(journal, "j", 2) == expected
        assert dict(await journal.read("other")) == {}

    async def test_no_entry_ever_changes(self, journal: Journal) -> None:
        await journal.claim("j", 1, LONG)
        assert await journal.write("j", 1, "a", b"first", LONG) == b"first"
        assert await journal.write("j", 1, "a", b"second", LONG) == b"first"
        assert await journal.write("j", 5, "a", b"third", LONG) == b"first"
        assert await journal.write("j", 5, "empty", b"", LONG) == b""
        assert await journal.write("j", 5, "empty", b"not empty", LONG) == b""
        assert dict(await journal.read("j")) == {"a": b"first", "empty": b""}

    async def test_a_thousand_entries_are_read_at_once(self, journal: Journal) -> None:
        for begin in range(0, 1000, 50):
            await asyncio.gather(
                *[journal.write("j", 1, f"step {n}", b"%d" % n, LONG) for n in range(begin, begin + 50)]
            )
        expected = {f"step {number}": b"%d" % number for number in range(1000)}
        assert dict(await journal.read("j")) == expected
        assert await claimed(journal, "j", 2) == expected

    async def test_large_values_come_back_whole(self, journal: Journal) -> None:
        big = bytes(range(256)) * 4096
        assert await journal.write("j", 1, "written", big, LONG) == big
        assert await journal.write("j", 1, "written", b"", LONG) == big
        assert await journal.post("j", "posted", big, LONG, "p") == 0
        assert dict(await journal.read("j")) == {"written": big, "posted/0": big}

    async def test_ids_and_names_are_told_apart_exactly(self, journal: Journal) -> None:
        for job_id in ODD:
            for name in ODD:
                value = f"{job_id} {name}".encode()
                assert await journal.write(job_id, 1, name, value, LONG) == value
        for job_id in ODD:
            assert dict(await journal.read(job_id)) == {name: f"{job_id} {name}".encode() for name in ODD}
        assert await journal.forget(ODD[:2]) == 2
        assert await journal.forget(ODD) == len(ODD) - 2

    # Tokens

    async def test_a_claim_may_be_repeated_and_a_later_one_follows(self, journal: Journal) -> None:
        for token in (1, 1, 2, 2, 7):
            assert await journal.claim("j", token, LONG) is not None
            assert await journal.write("j", token, f"by {token}", b"%d" % token, LONG) is not None

    async def test_who_was_overtaken_is_refused(self, journal: Journal) -> None:
        await journal.claim("j", 1, LONG)
        await journal.write("j", 1, "a", b"1", LONG)
        await journal.claim("j", 2, LONG)
        assert await journal.write("j", 1, "b", b"1", LONG) is None
        assert await journal.write("j", 1, "a", b"1", LONG) is None, "not even what stands is told"
        assert await journal.claim("j", 1, LONG) is None
        assert dict(await journal.read("j")) == {"a": b"1"}
        assert await journal.write("j", 2, "b", b"2", LONG) == b"2"
        assert await journal.claim("other", 1, LONG) is not None

    async def test_writing_uses_a_token_too(self, journal: Journal) -> None:
        assert await journal.write("j", 5, "a", b"5", LONG) == b"5"
        assert await journal.claim("j", 4, LONG) is None
        assert await journal.write("j", 4, "b", b"4", LONG) is None
        assert await journal.claim("j", 5, LONG) is not None

    async def test_tokens_are_compared_exactly_to_the_last_bit(self, journal: Journal) -> None:
        top = 2**63 - 1
        assert await journal.claim("j", 0, LONG) is not None
        for token in (9, 10, 2**31, 2**53, 2**53 + 1, top - 1, top):
            assert await journal.claim("j", token, LONG) is not None
            assert await journal.write("j", token, f"by {token}", b"", LONG) == b""
            assert await journal.claim("j", token - 1, LONG) is None, f"{token - 1} is less than {token}"
            assert await journal.write("j", token - 1, "late", b"", LONG) is None
        assert "late" not in await journal.read("j")

    async def test_of_two_attempts_at_once_the_earlier_writes_nothing_after_the_later_began(
        self, journal: Journal
    ) -> None:
        barrier = threading.Barrier(2)

        def working(token: int) -> Callable[[], Coroutine[Any, Any, list[tuple[bool, bytes | None]]]]:
            async def work() -> list[tuple[bool, bytes | None]]:
                twin = journal.twin()
                await twin.open()
                answers = []
                try:
                    for number in range(self.races):
                        await asyncio.to_thread(barrier.wait, 60)
                        began = await twin.claim(f"j{number}", token, LONG)
                        answers.append(
                            (
                                began is not None and "step" in began,
                                await twin.write(f"j{number}", token, "step", b"%d" % token, LONG),
                            )
                        )
                finally:
                    await twin.close()
                return answers

            return work

        earlier, later = await all_at_once(working(1), working(2))
        for number, ((_, first), (known, second)) in enumerate(zip(earlier, later, strict=True)):
            entries = await journal.read(f"j{number}")
            assert second == entries["step"], "the later attempt is never refused, and goes by what stands"
            assert first in (None, entries["step"])
            if second == b"2":
                assert first is None, "it wrote although a later one had begun"
            elif not known:
                assert first in (None, b"1")

    # What is posted

    async def test_posts_are_numbered_as_they_come(self, journal: Journal) -> None:
        assert [await journal.post("j", "s", b"%d" % number, LONG, f"p{number}") for number in range(12)] == [
            *range(12)
        ]
        assert await journal.post("j", "t", b"t", LONG, "q") == 0
        assert await journal.post("k", "s", b"k", LONG, "r") == 0
        assert dict(await journal.read("j")) == {**{f"s/{number}": b"%d" % number for number in range(12)}, "t/0": b"t"}
        assert await claimed(journal, "k", 1) == {"s/0": b"k"}

    async def test_a_repeated_post_is_known(self, journal: Journal) -> None:
        for _ in range(3):
            assert await journal.post("j", "s", b"one", LONG, "p1") == 0
            assert await journal.post("j", "s", b"two", LONG, "p2") == 1
        # Whatever it says now: the first time counts.
        assert await journal.post("j", "s", b"other", LONG, "p1") == 0
        assert await journal.post("j", "s", b"same words, another post", LONG, "p3") == 2
        # Of another job it is another one.
        assert await journal.post("k", "s", b"k", LONG, "p2") == 0
        assert dict(await journal.read("j")) == {"s/0": b"one", "s/1": b"two", "s/2": b"same words, another post"}

    async def test_a_post_needs_no_token_and_uses_none(self, journal: Journal) -> None:
        assert await journal.post("j", "s", b"early", LONG, "p1") == 0
        assert await claimed(journal, "j", 1) == {"s/0": b"early"}
        await journal.claim("j", 7, LONG)
        assert await journal.post("j", "s", b"late", LONG, "p2") == 1
        assert await journal.write("j", 7, "step", b"", LONG) == b""

    async def test_what_was_posted_does_not_change_by_writing_nor_what_was_written_by_posting(
        self, journal: Journal
    ) -> None:
        assert await journal.write("j", 1, "s/1", b"written", LONG) == b"written"
        assert await journal.post("j", "s", b"first", LONG, "p1") == 0
        assert await journal.post("j", "s", b"second", LONG, "p2") == 2
        assert await journal.write("j", 1, "s/0", b"other", LONG) == b"first"
        assert dict(await journal.read("j")) == {"s/0": b"first", "s/1": b"written", "s/2": b"second"}

    async def test_odd_names_of_posts_are_told_apart(self, journal: Journal) -> None:
        for place, name in enumerate(ODD):
            assert await journal.post("j", name, name.encode(), LONG, f"p:{name}") == 0, ODD[:place]
        for name in ODD:
            assert await journal.post("j", name, b"again", LONG, f"p:{name}") == 0
            assert await journal.post("j", name, b"second", LONG, f"q:{name}") == 1
        assert len(await journal.read("j")) == 2 * len(ODD)

    async def test_posts_from_many_at_once_get_numbers_of_their_own(self, journal: Journal) -> None:
        many = 4

        def posting(who: int) -> Callable[[], Coroutine[Any, Any, list[int]]]:
            async def post() -> list[int]:
                twin = journal.twin()
                await twin.open()
                try:
                    return [
                        await twin.post("j", "s", f"{who} {number}".encode(), LONG, f"{who} {number}")
                        for number in range(self.races)
                    ]
                finally:
                    await twin.close()

            return post

        told = await all_at_once(*[posting(who) for who in range(many)])
        assert sorted(number for numbers in told for number in numbers) == list(range(many * self.races))
        expected = {
            f"s/{place}": f"{who} {number}".encode()
            for who, numbers in enumerate(told)
            for number, place in enumerate(numbers)
        }
        assert dict(await journal.read("j")) == expected
        for numbers in told:
            assert numbers == sorted(numbers), "one who posts one after the other is numbered in that order"

    async def test_one_post_that_is_repeated_at_once_is_entered_once(self, journal: Journal) -> None:
        barrier = threading.Barrier(2)

        async def post() -> list[int]:
            twin = journal.twin()
            await twin.open()
            numbers = []
            try:
                for number in range(self.races):
                    await asyncio.to_thread(barrier.wait, 60)
                    numbers.append(await twin.post("j", "s", b"%d" % number, LONG, f"p{number}"))
            finally:
                await twin.close()
            return numbers

        first, second = await all_at_once(post, post)
        assert first == second == list(range(self.races))
        assert dict(await journal.read("j")) == {f"s/{number}": b"%d" % number for number in range(self.races)}

    # Forgetting

    async def test_what_is_forgotten_is_gone_with_its_token_and_its_posts(self, journal: Journal) -> None:
        await journal.write("j", 9, "a", b"a", LONG)
        await journal.post("j", "s", b"s", LONG, "p")
        await journal.post("k", "s", b"s", LONG, "p")
        await journal.claim("only claimed", 1, LONG)
        await journal.write("other", 1, "a", b"a", LONG)
        assert await journal.forget(["j", "k", "only claimed", "never"]) == 3
        assert await journal.forget(["j", "k", "only claimed", "never"]) == 0
        assert dict(await journal.read("j")) == {}
        assert dict(await journal.read("other")) == {"a": b"a"}
        assert await claimed(journal, "j", 1) == {}
        assert await journal.post("j", "s", b"new", LONG, "p") == 0
        assert dict(await journal.read("j")) == {"s/0": b"new"}

    async def test_entries_go_when_their_time_is_over_and_not_before(self, journal: Journal) -> None:
        begin = time.monotonic()
        await journal.write("short", 5, "a", b"a", self.keep)
        await journal.post("short", "s", b"s", self.keep, "p")
        await journal.post("posted", "s", b"s", self.keep, "p")
        await journal.write("long", 5, "a", b"a", LONG)
        # The longest one asked for counts, whoever asked, and however short the next ones are.
        await journal.post("later", "s", b"s", LONG, "p")
        await journal.write("later", 5, "a", b"a", self.keep)
        await journal.claim("later", 6, self.keep)
        longer = await self._kept_longer(journal)
        while await journal.read("short") or await journal.read("posted"):
            assert time.monotonic() < begin + self.keep + self.patience, "they were never deleted"
            await asyncio.sleep(0.05)
        assert time.monotonic() - begin >= self.keep * 0.95, "they were deleted before their time"
        assert dict(await journal.read("long")) == {"a": b"a"}
        assert dict(await journal.read("later")) == {"a": b"a", "s/0": b"s"}
        assert dict(await journal.read(longer)) == {"a": b"a"}
        assert await journal.claim("long", 4, LONG) is None
        assert await journal.claim("later", 5, LONG) is None
        assert await journal.post("later", "s", b"s", LONG, "p") == 0
        assert await claimed(journal, "short", 1) == {}
        assert await journal.post("short", "s", b"new", LONG, "p") == 0
        assert await journal.write("short", 1, "a", b"new", LONG) == b"new"

    async def _kept_longer(self, journal: Journal) -> str:
        """A job whose entries are kept for longer than was asked for at first."""
        for number in range(100):
            name = f"claimed {number}"
            await journal.write(name, 6, "a", b"a", self.keep)
            # On a machine that stood still meanwhile, it is too late for that.
            if await journal.claim(name, 7, LONG):
                return name
        raise AssertionError("nothing can be kept for longer")

    # Several

    async def test_a_twin_sees_the_same_and_outlives_its_original(self, journal_factory: Callable[[], Journal]) -> None:
        journal = journal_factory()
        await journal.open()
        await journal.write("j", 1, "a", b"a", LONG)
        twin = journal.twin()
        await twin.open()
        await journal.close()
        await journal.close()
        try:
            assert await claimed(twin, "j", 2) == {"a": b"a"}

            async def look() -> bytes | None:
                other = twin.twin()
                await other.open()
                try:
                    return await other.write("j", 1, "b", b"b", LONG)
                finally:
                    await other.close()

            assert await elsewhere(look) is None, "overtaken, whichever twin it was"
        finally:
            await twin.close()

    async def test_random_stories_end_as_the_model_says(self, journal_factory: Callable[[], Journal]) -> None:
        # In a thread of its own: hypothesis drives it, with an event loop of the machine's.
        await asyncio.to_thread(hunt_journals, journal_factory, examples=self.examples)
