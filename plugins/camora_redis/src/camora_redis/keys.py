"""The names of keys.

All keys of one queue begin with the name of its stream in braces: in a cluster they lie in one slot, so that one script
can change them together. The scripts make the same names (see `scripts/common.lua`).
"""

from __future__ import annotations

import attrs

__all__ = ["Keys"]

_ESCAPED = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


@attrs.frozen
class Keys:
    """`prefix` begins every name; `stream` and `failures`, if given, are the names of the streams of `default`.

    With `clustered`, the records of jobs lie in the slot of their queue; else nobody needs to know a job's queue to
    find its record.
    """

    prefix: str = "camora"
    group: str = "camora"
    clustered: bool = False
    stream: str | None = None
    failures: str | None = None

    def of_queue(self, queue: str) -> str:
        """The stream of a queue. Braces in names would decide the slot of a key, so they are escaped."""
        if self.stream is not None:
            return self.stream if queue == "default" else f"{self.stream}:{queue.translate(_ESCAPED)}"
        return f"{self.prefix}:{queue.translate(_ESCAPED)}"

    def failures_of(self, queue: str) -> str:
        """The stream of a queue's dead letters."""
        if self.failures is not None:
            return self.failures if queue == "default" else f"{self.failures}:{queue.translate(_ESCAPED)}"
        return self.helper(queue, "dead")

    def helper(self, queue: str, name: str) -> str:
        """Another key of a queue."""
        return f"{{{self.of_queue(queue)}}}:{name}"

    def record(self, queue: str, job_id: str) -> str:
        """The record of a job."""
        if self.clustered:
            return f"{{{self.of_queue(queue)}}}:result:{job_id}"
        return f"{self.prefix}:result:{job_id}"

    def own(self, name: str) -> str:
        """A key that belongs to no queue."""
        return f"{{{self.prefix}}}:{name}"

    @property
    def queues(self) -> str:
        """The set of all queues' names."""
        return self.own("queues")

    @property
    def finished(self) -> str:
        """The channel on which the ids of finished jobs are told."""
        return f"{self.prefix}:finished"
