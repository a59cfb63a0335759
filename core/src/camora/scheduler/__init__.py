"""The scheduler: it dispatches what is due, beside any number of others like it."""

from camora.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
