"""What tests of applications and of plugins are made of."""

from typing import TYPE_CHECKING

from camora.lazy import names_of

if TYPE_CHECKING:
    from camora.testing.clock import VirtualClock
    from camora.testing.dispatched import Dispatched, DispatchedJob
    from camora.testing.finished import Finished, FinishedJob
    from camora.testing.recording import record
    from camora.testing.simulation import Simulation, simulate
    from camora.testing.worker import TestWorker

__all__ = [
    "Dispatched",
    "DispatchedJob",
    "Finished",
    "FinishedJob",
    "Simulation",
    "TestWorker",
    "VirtualClock",
    "record",
    "simulate",
]

if not TYPE_CHECKING:
    __getattr__ = names_of(
        __name__,
        {
            "camora.testing.clock": ("VirtualClock",),
            "camora.testing.dispatched": ("Dispatched", "DispatchedJob"),
            "camora.testing.finished": ("Finished", "FinishedJob"),
            "camora.testing.recording": ("record",),
            "camora.testing.simulation": ("Simulation", "simulate"),
            "camora.testing.worker": ("TestWorker",),
        },
    )
