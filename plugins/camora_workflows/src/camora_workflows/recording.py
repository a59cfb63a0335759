"""Dispatching a workflow that is recorded: whole, then started, and only then handed to the broker.

Who dies before the start has dispatched nothing; what has started will be finished, whoever dies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from camora.dispatchable import Dispatchable
from camora.errors import BrokerUnavailable, DispatchError, DispatchUncertain
from camora.interfaces import START, Host, Node, WorkflowRecord, WorkflowStore
from camora.message import Envelope

from camora_workflows.compiling import Compiler, Draft
from camora_workflows.drafting import Written, write
from camora_workflows.following import Following
from camora_workflows.patience import patiently
from camora_workflows.plan import Plan, pack
from camora_workflows.stopping import stop_cancelled

__all__ = ["Recorder"]

_BATCH, _BATCH_BYTES = 500, 1024 * 1024
"""How many nodes are recorded in one step, and about how many bytes they have."""
_BREATH = 25
"""After so many nodes others get their turn, the request with the batch before among them."""
_AT_HAND = 8 * 1024 * 1024
"""How many bytes of messages are kept from recording until they are published; others are read again."""
_HAND_ON = 1000
"""How many jobs are published in one step."""
_FRESH = 30.0
"""Seconds for which it is known what has not ended yet. Who stood still for longer looks, for others went on."""


class _AtHand:
    """The first jobs of a workflow, encoded as they are sent, as far as they fit in memory."""

    def __init__(self) -> None:
        self.envelopes: list[tuple[int, Envelope]] = []
        self.complete = True
        """False when there are more, which have to be read from the store."""
        self.known = 0.0
        """Until when nobody else can have gone on with them, by the loop's clock."""
        self._room = _AT_HAND

    def take(self, written: Written) -> None:
        """Keep it, if it is to be published first, and all before it were kept, too."""
        if written.gate != START or not self.complete:
            return
        if written.envelope is None:  # an empty group: it has no job, and is not to be passed over
            self.complete = False
            return
        self._room -= len(written.envelope.body) + 500
        if self._room < 0:
            self.complete = False
            return
        self.envelopes.append((written.index, written.envelope))


class Recorder:
    """Records compositions of one app."""

    def __init__(self, host: Host, following: Following) -> None:
        self._host = host
        self._following = following

    async def dispatch(self, store: WorkflowStore, what: Dispatchable[Any], asked_id: str | None) -> tuple[str, str]:
        """Record it, start it, and publish what begins; returns its id, and its name.

        Under an id that is there already, what is there is resumed. Raises `DispatchError`s: before the start nothing
        was dispatched, and the record is deleted; `DispatchUncertain` means that it has started, or may have.
        """
        host = self._host
        workflow = asked_id or host.new_id()
        compiler = Compiler(what, host.port)
        drafts = compiler.drafts()
        name = repr(what)[:200]
        now = host.clock.now_ms()
        record = WorkflowRecord(id=workflow, name=name, created=now, changed=now)
        made = await patiently(host, lambda: store.create(record))
        if not made and asked_id and await self._resume(store, workflow):
            return workflow, name
        at_hand = _AtHand()
        try:
            await self._record(store, workflow, drafts, at_hand)
        except _NotRecordingError:
            # Somebody who dispatches the same under the same id was faster: what he has started is not to be deleted.
            if asked_id and await self._resume(store, workflow):
                return workflow, name
            raise
        except BaseException:
            if made:
                with contextlib.suppress(BrokerUnavailable):  # else it is swept away, for it never starts
                    await store.delete([workflow], state="recording")
            raise
        at_hand.known = asyncio.get_running_loop().time()
        await self._start(store, workflow, compiler.plan)
        try:
            await self._publish(store, workflow, at_hand)
        except DispatchError as error:  # of any kind: whoever is told that nothing was dispatched would do it again
            raise DispatchUncertain(
                f"workflow {workflow} is recorded and has started, but not all of its first jobs could be published: "
                f"{error}. A worker will go on with it by itself; dispatching again with job_id={workflow!r} goes on "
                "at once, and cannot double it",
                job_id=workflow,
            ) from error
        return workflow, name

    async def _resume(self, store: WorkflowStore, workflow: str) -> bool:
        """Go on with one that has started, as a repeated dispatch; False when it is still to be recorded."""
        found = await patiently(self._host, lambda: store.get(workflow))
        if found is None or found.state == "recording":
            return False
        if found.state == "running":
            await self._following.open_start(store, workflow, after=found.passed.get(START, -1))
        return True

    async def _record(self, store: WorkflowStore, workflow: str, drafts: Iterable[Draft], at_hand: _AtHand) -> None:
        adding: asyncio.Task[None] | None = None
        try:
            async for batch in self._batches(workflow, drafts, at_hand):
                if adding is not None:
                    await adding
                # While the store has one batch, the next one is made.
                adding = asyncio.create_task(self._add(store, workflow, batch))
            if adding is not None:
                await adding
        finally:
            if adding is not None:
                adding.cancel()
                await asyncio.gather(adding, return_exceptions=True)

    async def _add(self, store: WorkflowStore, workflow: str, batch: Sequence[Node]) -> None:
        if not await patiently(self._host, lambda: store.add(workflow, batch, self._host.clock.now_ms())):
            raise _NotRecordingError(
                f"workflow {workflow} was deleted, or started by somebody else, while it was being recorded; "
                "nothing of it was published here"
            )

    async def _batches(self, workflow: str, drafts: Iterable[Draft], at_hand: _AtHand) -> AsyncIterator[Sequence[Node]]:
        batch: list[Node] = []
        size = 0
        for count, draft in enumerate(drafts, 1):
            if count % _BREATH == 0:
                await asyncio.sleep(0)
            written = await write(self._host, draft, workflow)
            at_hand.take(written)
            node = written.node()
            batch.append(node)
            size += len(node.spec)
            if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    async def _start(self, store: WorkflowStore, workflow: str, plan: Plan) -> None:
        try:
            started = await patiently(self._host, lambda: store.start(workflow, pack(plan), self._host.clock.now_ms()))
        except BrokerUnavailable as error:
            raise DispatchUncertain(
                f"workflow {workflow} is recorded, and the store did not say whether it has started: {error}. "
                f"Dispatching again with job_id={workflow!r} cannot double it",
                job_id=workflow,
            ) from error
        if not started:
            raise DispatchError(
                f"workflow {workflow} was deleted by somebody before it started; nothing was dispatched"
            )

    async def _publish(self, store: WorkflowStore, workflow: str, at_hand: _AtHand) -> None:
        last, loop = -1, asyncio.get_running_loop()
        for page in _pages(at_hand.envelopes):
            if loop.time() - at_hand.known > _FRESH:
                break
            await self._host.publish([envelope for _, envelope in page])
            last = page[-1][0]
            await self._passed(store, workflow, last)
            if await stop_cancelled(self._host, store, workflow, [index for index, _ in page]):
                break
            at_hand.known = loop.time()
        else:
            if at_hand.complete:
                return
        # What is left of it is read from the store, with what became of it meanwhile.
        await self._following.open_start(store, workflow, after=last)

    async def _passed(self, store: WorkflowStore, workflow: str, last: int) -> None:
        now = self._host.clock.now_ms()
        await patiently(self._host, lambda: store.passed(workflow, START, last, now))


class _NotRecordingError(DispatchError):
    """Nothing can be added to it any more."""


def _pages(what: list[tuple[int, Envelope]]) -> Iterable[list[tuple[int, Envelope]]]:
    return (what[begin : begin + _HAND_ON] for begin in range(0, len(what), _HAND_ON))
