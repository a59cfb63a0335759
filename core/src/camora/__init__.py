"""Background tasks: one API over any broker, everything a plugin, nothing lost."""

from typing import TYPE_CHECKING

from camora.lazy import names_of

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.builtin.signing import SignedCodec
    from camora.builtin.triggers import calendar, cron, every, once
    from camora.context import Context
    from camora.dependencies import dependency, inject
    from camora.errors import CamoraError
    from camora.hookspecs import hookimpl
    from camora.interfaces.middleware import Middleware
    from camora.interfaces.pool import PoolSettings
    from camora.job import Job, JobInfo
    from camora.message import Message
    from camora.options import TaskOptions
    from camora.outcome import CancelResult, DeadLetter, Progress, Status
    from camora.provider import MadeFrom, Provider
    from camora.queue import Queue
    from camora.retry import RetryPolicy
    from camora.secrets import Secret
    from camora.settings import AppSettings, WorkerSettings
    from camora.signals import Discard, Failure, Retry
    from camora.signature import Signature
    from camora.task import BaseTask, Task

__all__ = [
    "AppSettings",
    "BaseTask",
    "Camora",
    "CamoraError",
    "CancelResult",
    "Context",
    "DeadLetter",
    "Discard",
    "Failure",
    "Job",
    "JobInfo",
    "MadeFrom",
    "Message",
    "Middleware",
    "PoolSettings",
    "Progress",
    "Provider",
    "Queue",
    "Retry",
    "RetryPolicy",
    "Secret",
    "Signature",
    "SignedCodec",
    "Status",
    "Task",
    "TaskOptions",
    "WorkerSettings",
    "calendar",
    "cron",
    "dependency",
    "every",
    "hookimpl",
    "inject",
    "once",
]

if not TYPE_CHECKING:
    __getattr__ = names_of(
        __name__,
        {
            "camora.app": ("Camora",),
            "camora.builtin.signing": ("SignedCodec",),
            "camora.builtin.triggers": ("calendar", "cron", "every", "once"),
            "camora.context": ("Context",),
            "camora.dependencies": ("dependency", "inject"),
            "camora.errors": ("CamoraError",),
            "camora.hookspecs": ("hookimpl",),
            "camora.interfaces.middleware": ("Middleware",),
            "camora.interfaces.pool": ("PoolSettings",),
            "camora.job": ("Job", "JobInfo"),
            "camora.message": ("Message",),
            "camora.options": ("TaskOptions",),
            "camora.outcome": ("CancelResult", "DeadLetter", "Progress", "Status"),
            "camora.provider": ("MadeFrom", "Provider"),
            "camora.queue": ("Queue",),
            "camora.retry": ("RetryPolicy",),
            "camora.secrets": ("Secret",),
            "camora.settings": ("AppSettings", "WorkerSettings"),
            "camora.signals": ("Discard", "Failure", "Retry"),
            "camora.signature": ("Signature",),
            "camora.task": ("BaseTask", "Task"),
        },
    )


def __dir__() -> list[str]:
    return __all__
