"""The hunt for a journal: random calls on it, beside a model."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from camora.interfaces.journal import Journal

__all__ = ["hunt_journals"]

R = TypeVar("R")

_JOBS = st.integers(0, 1)
_TOKENS = st.integers(0, 4)
_NAMES = st.sampled_from(["a", "b", "a/0", "a/1", "b/0"])
_POSTED = st.sampled_from(["a", "b"])
_KEEP = 3600.0


@attrs.define
class _Job:
    token: int | None = None
    entries: dict[str, bytes] = attrs.field(factory=dict)
    posts: dict[str, int] = attrs.field(factory=dict)


class _Machine(RuleBasedStateMachine):
    """Two journals on the same data, and the model beside them. Each example has jobs of its own."""

    loop: asyncio.AbstractEventLoop
    journals: Sequence[Journal]
    numbers: itertools.count[int]

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"{next(self.numbers):09}"
        self.jobs: dict[int, _Job] = {}
        self.calls = 0

    @property
    def journal(self) -> Journal:
        """One and the other by turns."""
        self.calls += 1
        return self.journals[self.calls % len(self.journals)]

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return self.loop.run_until_complete(work)

    def id_of(self, job: int) -> str:
        return f"{self.prefix}-{job}"

    def _uses(self, job: int, token: int) -> _Job | None:
        known = self.jobs.setdefault(job, _Job())
        if known.token is not None and token < known.token:
            return None
        known.token = token
        return known

    @rule(job=_JOBS, token=_TOKENS)
    def claim(self, job: int, token: int) -> None:
        """Begin an attempt."""
        known = self._uses(job, token)
        found = self.run(self.journal.claim(self.id_of(job), token, _KEEP))
        assert (None if found is None else dict(found)) == (None if known is None else known.entries)

    @rule(job=_JOBS, token=_TOKENS, name=_NAMES, empty=st.booleans())
    def write(self, job: int, token: int, name: str, *, empty: bool) -> None:
        """Enter something, perhaps for an attempt that was overtaken."""
        known = self._uses(job, token)
        value = b"" if empty else b"written %d" % self.calls
        stands = None if known is None else known.entries.setdefault(name, value)
        assert self.run(self.journal.write(self.id_of(job), token, name, value, _KEEP)) == stands

    @rule(job=_JOBS, name=_POSTED, post=st.integers(0, 3), twice=st.booleans())
    def post(self, job: int, name: str, post: int, *, twice: bool) -> None:
        """Send something, perhaps again."""
        known = self.jobs.setdefault(job, _Job())
        post_id, value = f"{name} {post}", b"posted %d" % self.calls
        if post_id not in known.posts:
            free = next(number for number in itertools.count() if f"{name}/{number}" not in known.entries)
            known.posts[post_id], known.entries[f"{name}/{free}"] = free, value
        for _ in range(1 + twice):
            found = self.run(self.journal.post(self.id_of(job), name, value, _KEEP, post_id))
            assert found == known.posts[post_id]

    @rule(job=_JOBS, seldom=st.integers(0, 3))
    def forget(self, job: int, seldom: int) -> None:
        """All of a job."""
        if not seldom:
            assert self.run(self.journal.forget([self.id_of(job)])) == (self.jobs.pop(job, None) is not None)

    @invariant()
    def all_is_as_it_was_told(self) -> None:
        """Each entry."""
        for job in range(2):
            known = self.jobs.get(job)
            assert dict(self.run(self.journal.read(self.id_of(job)))) == ({} if known is None else known.entries)

    def teardown(self) -> None:
        """Leave nothing behind for the next example."""
        self.run(self.journal.forget([self.id_of(job) for job in range(2)]))


def hunt_journals(make_journal: Callable[[], Journal], *, examples: int = 100, steps: int = 25, **more: Any) -> None:
    """Run the machine; raises `AssertionError` with the shortest story found. Not inside an event loop.

    `make_journal` is called once. Keywords else are those of `hypothesis.settings`.
    """
    loop = asyncio.new_event_loop()
    try:
        journal = make_journal()
        twin = journal.twin()
        for one in (journal, twin):
            loop.run_until_complete(one.open())
        kind = type(
            "JournalMachine", (_Machine,), {"loop": loop, "journals": (journal, twin), "numbers": itertools.count(1)}
        )
        try:
            run_state_machine_as_test(
                kind,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    **more,
                ),
            )
        finally:
            for one in (twin, journal):
                loop.run_until_complete(one.close())
    finally:
        loop.close()
