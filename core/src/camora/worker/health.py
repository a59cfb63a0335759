"""How a worker is: what its processes say of themselves, and what that makes together."""

from __future__ import annotations

import msgspec

__all__ = ["Health", "WorkerHealth"]


class WorkerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How one process is. `polled` is seconds since the broker answered its slowest lane, None for never."""

    live: bool
    ready: bool
    reasons: tuple[str, ...] = ()
    """Why it is not live, or not ready."""
    worker: str = ""
    pid: int = 0
    state: str = "starting"
    queues: tuple[str, ...] = ()
    busy: int = 0
    settled: int = 0
    polled: float | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How all processes of a worker are: live or ready when each of them is."""

    live: bool
    ready: bool
    reasons: tuple[str, ...]
    processes: tuple[WorkerHealth, ...]

    @classmethod
    def of(cls, *processes: WorkerHealth) -> Health:
        """What these make together."""
        many = len(processes) > 1
        return cls(
            live=all(process.live for process in processes),
            ready=bool(processes) and all(process.ready for process in processes),
            reasons=tuple(
                f"process {process.pid}: {reason}" if many else reason
                for process in processes
                for reason in process.reasons
            ),
            processes=processes,
        )
