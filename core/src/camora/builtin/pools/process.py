"""The process pool: functions in processes of their own, which can be killed."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
from typing import TYPE_CHECKING, Any

from camora.builtin.pools.main_module import app_reference, imported_for_another
from camora.builtin.pools.parcel import pack, refused, unpack
from camora.builtin.pools.references import check
from camora.errors import ConfigurationError
from camora.interfaces.pool import Call, Pool, PoolSettings
from camora.propagation import capture

if TYPE_CHECKING:
    from camora.builtin.pools.slot import Slot

__all__ = ["ProcessPool"]

_FINISH = 2.0
"""Seconds a process has to tear down the dependencies that were made in it."""


class ProcessPool(Pool):
    """Up to `workers` processes (default: one per core), started by calls that find none free, and kept.

    Processes are spawned, not forked, and import the function by its reference. A call that takes too long, or is
    cancelled, loses its process; so does nobody else. With `max_calls` a process is replaced after that many.
    """

    kind = "process"
    in_process = False
    kills = True

    def __init__(self, settings: PoolSettings) -> None:
        self.limit = self._limit = settings.workers or len(os.sched_getaffinity(0))
        self._max_calls = settings.max_calls
        self._free = asyncio.Semaphore(self._limit)
        self._idle: list[Slot] = []
        self._slots: set[Slot] = set()
        """All whose process may live."""
        self._ending: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        self._checked: dict[Any, str] = {}
        self._slot_type: type[Slot] | None = None
        self._closed = False
        self._owner = os.getpid()

    async def open(self) -> None:
        """Import what starts processes, which takes a while, before the loop has work; they start with the calls."""
        from camora.builtin.pools import slot

        if imported_for_another():
            raise ConfigurationError(
                "this script starts a worker while a process of another worker's pool imports it, because a task "
                'stands in the script itself: start the worker under  if __name__ == "__main__":'
            )
        self._slot_type = slot.Slot

    async def call(self, call: Call) -> Any:
        """Run it in a process. Raises `EncodeError` for an argument or result that cannot go there or come back.

        An error from before the function is called has a true attribute `refused`; one that the function raised has
        its `remote_traceback`. The time for a call begins when its process has started, and has imported the module
        of the function.
        """
        if self._closed:
            raise RuntimeError(f"{call.task}: the process pool is closed")
        try:
            self._check(call)
            data = pack(call, capture())
        except Exception as error:
            refused(error)
            raise
        me = asyncio.current_task()
        assert me is not None
        self._calls.add(me)
        try:
            async with self._free:
                slot = self._take(call)
                try:
                    await slot.ready(call.task)
                    answer = await slot.run(data, call.timeout, call.task)
                finally:
                    self._give_back(slot)
        finally:
            self._calls.discard(me)
        return unpack(answer, call)

    def _check(self, call: Call) -> None:
        if (
            call.reference
            and not inspect.ismethod(call.function)
            and self._checked.get(call.function) != call.reference
        ):
            check(call.function, call.reference, call.task)
            self._checked[call.function] = call.reference

    def _take(self, call: Call) -> Slot:
        while self._idle:
            slot = self._idle.pop()
            if not slot.dead:
                return slot
            self._retire(slot, 0.0)
        assert self._slot_type is not None, "the pool is not open"
        slot = self._slot_type(*filter(None, (call.reference, app_reference(call.app))))
        if not self._slots:
            # pebble has such a hook, too, but it asks nicely. Ours was registered after it, and so runs before it.
            atexit.register(self._kill_all)
        self._slots.add(slot)
        return slot

    def _give_back(self, slot: Slot) -> None:
        if slot.dead:
            self._retire(slot, 0.0)
        elif self._closed or (self._max_calls is not None and slot.calls >= self._max_calls):
            self._retire(slot, _FINISH)
        else:
            self._idle.append(slot)

    def _retire(self, slot: Slot, grace: float) -> None:
        """See a process to its end, beside everything else."""
        task = asyncio.get_running_loop().create_task(slot.finish(grace))
        self._ending.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._ending.discard(done)
            self._slots.discard(slot)
            if not self._slots:
                atexit.unregister(self._kill_all)

        task.add_done_callback(ended)

    def _kill_all(self) -> None:
        """The interpreter ends, and nobody closed the pool."""
        if os.getpid() == self._owner:  # and not a fork of it
            for slot in self._slots:
                slot.kill()

    async def close(self, grace: float) -> None:
        """Wait for running calls, kill the rest; idle processes tear down what they made."""
        self._closed = True
        calls = self._calls - {asyncio.current_task()}
        if calls:
            _, late = await asyncio.wait(calls, timeout=grace)
            for call in late:
                call.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        while self._idle:
            self._retire(self._idle.pop(), _FINISH)
        if self._ending:
            await asyncio.wait(set(self._ending))
