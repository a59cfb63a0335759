"""Where the broker has the job of a node: mostly under the id of the node's run, but not always.

A dead letter that was put back goes on under the id that it had, in a run of its node that is a later one.
"""

from __future__ import annotations

from camora.errors import DecodeError
from camora.interfaces import Host, QueuedJob

from camora_workflows.plan import HEADER, Place, job_id, place_of

__all__ = ["find_job"]


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


def _is_of(host: Host, found: QueuedJob, run: int) -> bool:
    try:
        place = place_of(host.codec.decode(found.body).headers.get(HEADER, ""))
    except DecodeError:
        return True  # it may be, and a second one would run beside it
    return isinstance(place, Place) and place.run == run
