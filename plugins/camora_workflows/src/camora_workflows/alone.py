"""What gathers results runs once at a time, where a broker may have its message twice.

A worker that dies between publishing what follows a job and acknowledging that job leaves it to another one to do both
again. Most brokers know the repeated id. Where one does not, there are two messages: the later one finds the node
ended, unless both are taken at the same moment. For that moment there is a slot, as of `max_concurrency`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from camora.context import Context
from camora.errors import UnsupportedCapability
from camora.interfaces import Limit, NodeState

from camora_workflows.plan import Kind, Spec, unpack

__all__ = ["alone", "gathers"]

_WAITED, _MOMENT = 0.05, 0.5
"""Seconds: who had to wait for longer than this stays for a moment, in which the other's end gets into the store."""


def gathers(own: NodeState, fed: NodeState | None) -> bool:
    """Whether this node has more before it than one job: `fed` is the node that it gets something of, if it gets any.

    Links of chains and members of groups do without: a slot for each would cost more than their own settlement.
    """
    if own.gate is not None:
        return False
    return fed is None or unpack(Spec, fed.spec).kind is not Kind.JOB


@contextlib.asynccontextmanager
async def alone(context: Context) -> AsyncIterator[None]:
    """Inside the block no other message of this job is run. Raises `NotYet` rather than wait for long.

    Whether one was run before is to be looked up in there. A message that was delivered before waits like any other:
    the slot of a worker that died with it lapses as its lease on the message did.
    """
    async with contextlib.AsyncExitStack() as stack:
        since = time.monotonic()
        with contextlib.suppress(UnsupportedCapability):  # a store of workflows that keeps no slots
            await stack.enter_async_context(context.holding([Limit(name=f"workflow:{context.id}", most=1)]))
        if time.monotonic() - since > _WAITED:
            await asyncio.sleep(_MOMENT)
        yield
