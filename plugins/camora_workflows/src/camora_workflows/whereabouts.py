"""Where the broker has the job of a node: mostly under the id of the node's run, but not always.

A dead letter that was put back goes on under the id that it had, in a run of its node that is a later one.
"""

from __future__ import annotations

import contextlib

from camora.errors import DecodeError, UnsupportedCapability
from camora.interfaces import Host, NodeState, QueuedJob

from camora_workflows.plan import HEADER, Place, job_id, place_of

__all__ = ["find_job", "is_nowhere"]


async def find_job(host: Host, workflow: str, index: int, run: int) -> QueuedJob | None:
    """The message of this run of a node; None where the broker has none.

    Raises `UnsupportedCapability` where it cannot be asked.
    """
    queues = (await host.stores()).broker.queues
    for earlier in range(run, -1, -1):
        found = await queues.find(job_id(workflow, index, earlier))
        if found is not None and (earlier == run or _is_of(host, found, run)):
            return found
    return None


async def is_nowhere(host: Host, workflow: str, node: NodeState) -> bool:
    """Whether the broker does not have the job of a node; where it cannot be asked, it knows a repeated id by itself.

    A broker that does neither is trusted to have it.
    """
    broker = (await host.stores()).broker
    with contextlib.suppress(UnsupportedCapability):
        return await find_job(host, workflow, node.index, node.run) is None
    return bool(broker.capabilities.dedup)


def _is_of(host: Host, found: QueuedJob, run: int) -> bool:
    try:
        place = place_of(host.codec.decode(found.body).headers.get(HEADER, ""))
    except DecodeError:
        return True  # it may be, and a second one would run beside it
    return isinstance(place, Place) and place.run == run
