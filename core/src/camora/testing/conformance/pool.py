"""The exam of a pool."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from camora.interfaces.pool import Call, Pool, ProcessDied, RemoteError, TaskExit
from camora.signals import Suspend
from camora.testing.conformance import pool_calls

__all__ = ["PoolConformance"]

_EXITS: list[tuple[str, tuple[Any, ...]]] = [
    ("exit_with", (0,)),
    ("exit_with", (3,)),
    ("exit_with", ("bye",)),
    ("interrupt", ()),
    ("raise_bare", ()),
]
_PLAIN = [None, True, 1, 1.5, "ü\x00", b"\x00\xff", [1, [2]], {"a": {"b": None}}, (1, 2), {1, 2}, "x" * 300_000]


@pytest.mark.asyncio
class PoolConformance:
    """Override `pool_factory`, and say what kind of functions the pool runs."""

    runs_async: bool = False
    """True for a pool of coroutine functions."""
    concurrent: bool = True
    """False for a pool that runs one call after the other, in the caller's own time."""
    patience: float = 30.0
    """Seconds after which a call that has not returned is taken for stuck. Processes take their time to start."""

    _slots: asyncio.Semaphore | None = None

    @pytest.fixture
    def pool_factory(self) -> Callable[[int], Pool]:
        """Makes an unopened pool with so many workers."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture pool_factory")

    @pytest_asyncio.fixture
    async def pool(self, pool_factory: Callable[[int], Pool]) -> AsyncIterator[Pool]:
        """The pool under test, open, with two workers."""
        pool = pool_factory(2)
        await pool.open()
        try:
            yield pool
        finally:
            await pool.close(5.0)

    def make_call(self, name: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Call:
        """A call of the function of this name in `pool_calls`."""
        name = f"{name}_later" if self.runs_async else name
        return Call(
            function=getattr(pool_calls, name),
            args=args,
            kwargs=kwargs,
            is_async=self.runs_async,
            reference=f"{pool_calls.__name__}:{name}",
            task=name,
            timeout=timeout,
        )

    async def run(self, pool: Pool, name: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Call it as a worker does, within the pool's `limit`; fails when it does not return."""
        if pool.limit is not None and self._slots is None:
            self._slots = asyncio.Semaphore(pool.limit)
        async with asyncio.timeout(self.patience), self._slots or contextlib.nullcontext():
            return await pool.call(self.make_call(name, *args, timeout=timeout, **kwargs))

    # What comes back

    async def test_values_go_and_come_as_they_were(self, pool: Pool) -> None:
        assert pool.kind
        assert pool.limit is None or pool.limit >= 1
        assert await self.run(pool, "double", 4, plus=1) == 9
        for value in _PLAIN:
            assert await self.run(pool, "echo", value) == value

    async def test_each_of_many_calls_gets_its_own_answer(self, pool: Pool) -> None:
        answers = await asyncio.gather(*[self.run(pool, "double", number) for number in range(200)])
        assert answers == [2 * number for number in range(200)]

    async def test_it_raises_the_function_s_exception(self, pool: Pool) -> None:
        with pytest.raises((pool_calls.Odd, RemoteError)) as raised:
            await self.run(pool, "raise_odd", "trouble")
        error = raised.value
        assert "trouble" in str(error)
        if isinstance(error, RemoteError):
            assert error.remote_type.endswith("pool_calls.Odd")
        else:
            assert isinstance(error, pool_calls.Odd)
            assert error.number == 7
        assert await self.run(pool, "double", 1) == 2

    async def test_what_asks_to_be_begun_anew_comes_back_as_it_is(self, pool: Pool) -> None:
        for _ in range(2):
            with pytest.raises(Suspend) as raised:
                await self.run(pool, "suspend", 1.5)
            assert raised.value.delay == 1.5
            assert await self.run(pool, "double", 1) == 2

    async def test_what_is_no_exception_comes_back_as_one_and_the_pool_lives_on(self, pool: Pool) -> None:
        for name, args in _EXITS:
            for _ in range(2):
                with pytest.raises(TaskExit):
                    await self.run(pool, name, *args)
            assert await self.run(pool, "double", 1) == 2
        # Raised as it is, this one would end the caller's own coroutine in silence.
        with pytest.raises(Exception):  # noqa: B017, PT011 -- which one is the pool's own affair
            await self.run(pool, "raise_stop")
        assert await self.run(pool, "double", 1) == 2

    async def test_what_cannot_leave_its_process_is_an_error_and_the_pool_lives_on(self, pool: Pool) -> None:
        if pool.in_process:
            pytest.skip("everything can travel within a process")
        with pytest.raises(Exception):  # noqa: B017, PT011 -- which one is the pool's own affair
            await self.run(pool, "unreturnable")
        with pytest.raises(Exception):  # noqa: B017, PT011
            await self.run(pool, "echo", lambda: None)
        assert await self.run(pool, "double", 1) == 2

    # Context variables

    async def test_the_caller_s_context_variables_are_visible(self, pool: Pool) -> None:
        pool_calls.WORD.set("mine")
        if pool.in_process:
            assert await self.run(pool, "word") == "mine"
        else:
            # Only values that can travel do; this one can, if the pool sends any.
            assert await self.run(pool, "word") in ("mine", "unset")
        # Each in a task of its own, as a worker runs them: what one sets does not reach the next.
        assert await asyncio.create_task(self.run(pool, "set_word", "theirs")) == "theirs"
        assert await asyncio.create_task(self.run(pool, "word")) in ("mine", "unset")
        assert pool_calls.WORD.get() == "mine"

    async def test_calls_at_the_same_time_see_each_their_own_context(self, pool: Pool) -> None:
        if not pool.in_process:
            pytest.skip("context variables do not leave the process")

        async def say(text: str) -> Any:
            pool_calls.WORD.set(text)
            return await self.run(pool, "word")

        texts = [f"word-{number}" for number in range(20)]
        assert await asyncio.gather(*[asyncio.create_task(say(text)) for text in texts]) == texts

    # Concurrency

    async def test_no_more_run_at_once_than_there_are_workers(self, pool: Pool, tmp_path: Path) -> None:
        await asyncio.gather(*[self.run(pool, "note_and_sleep", str(tmp_path), 0.1) for _ in range(6)])
        seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
        assert len(seen) == 6
        assert max(seen) <= 2

    async def test_as_many_run_at_once_as_there_are_workers(self, pool: Pool, tmp_path: Path) -> None:
        if not self.concurrent:
            pytest.skip("one call after the other")
        calls = [self.run(pool, "meet", str(tmp_path), 2, self.patience / 2) for _ in range(2)]
        assert await asyncio.gather(*calls) == [True, True], "the second call waited for the first"

    async def test_a_cancelled_caller_is_free_at_once_and_so_is_its_slot(self, pool: Pool) -> None:
        if not self.concurrent:
            pytest.skip("the caller itself runs the function")
        await self.run(pool, "double", 1)
        stuck = [asyncio.create_task(pool.call(self.make_call("sleep", 8.0))) for _ in range(2)]
        await asyncio.sleep(0.2)
        begin = time.monotonic()
        for task in stuck:
            task.cancel()
        results = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert time.monotonic() - begin < 5.0
        assert await self.run(pool, "double", 2) == 4
        assert time.monotonic() - begin < 7.0, "the slots were not replaced"

    async def test_what_was_abandoned_is_counted(self, pool: Pool) -> None:
        assert pool.abandoned == 0
        if self.runs_async or not self.concurrent or pool.kills:
            pytest.skip("this pool can stop what it runs, or runs nothing beside its caller")
        task = asyncio.create_task(pool.call(self.make_call("sleep", 0.5)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert pool.abandoned == 1
        async with asyncio.timeout(self.patience):
            while pool.abandoned:
                await asyncio.sleep(0.05)

    # Killing and dying

    async def test_a_call_that_takes_too_long_is_killed_and_nobody_else_is(self, pool: Pool) -> None:
        if not pool.kills:
            pytest.skip("this pool cannot kill")
        await self.run(pool, "double", 1)
        bystander = asyncio.create_task(self.run(pool, "sleep", 1.0))
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            await self.run(pool, "sleep", 25.0, timeout=0.3)
        assert 0.25 < time.monotonic() - begin < 10
        assert await bystander == "slept"
        assert await self.run(pool, "double", 1) == 2

    async def test_a_process_that_dies_is_reported_and_disturbs_nobody(self, pool: Pool) -> None:
        if pool.in_process:
            pytest.skip("there is no other process")
        for exit_code in (3, -9):
            bystander = asyncio.create_task(self.run(pool, "sleep", 0.5))
            with pytest.raises(ProcessDied) as died:
                await self.run(pool, "die", exit_code)
            assert died.value.exit_code in (exit_code, None)
            assert await bystander == "slept"
        assert await asyncio.gather(*[self.run(pool, "double", number) for number in range(6)]) == [0, 2, 4, 6, 8, 10]

    # Ending

    async def test_closing_waits_for_running_calls_within_its_grace(self, pool_factory: Callable[[int], Pool]) -> None:
        if not self.concurrent:
            pytest.skip("nothing runs beside the caller")
        pool = pool_factory(2)
        await pool.open()
        await self.run(pool, "double", 1)
        running = asyncio.create_task(self.run(pool, "sleep", 0.4))
        await asyncio.sleep(0.1)
        await pool.close(self.patience)
        assert await running == "slept"

    async def test_closing_does_not_wait_longer_than_its_grace(self, pool_factory: Callable[[int], Pool]) -> None:
        if not self.concurrent:
            pytest.skip("nothing runs beside the caller")
        pool = pool_factory(2)
        await pool.open()
        await self.run(pool, "double", 1)
        stuck = asyncio.create_task(pool.call(self.make_call("sleep", 4.0)))
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        await pool.close(0.2)
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        assert time.monotonic() - begin < 3.5

    async def test_closing_may_be_repeated(self, pool_factory: Callable[[int], Pool]) -> None:
        pool = pool_factory(2)
        await pool.open()
        await self.run(pool, "double", 1)
        await pool.close(1.0)
        await pool.close(0.0)
