"""Background tasks: one API over any broker, everything a plugin, nothing lost."""

from camora.app import Camora, Queue
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
from camora.retry import RetryPolicy
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
    "Signature",
    "Status",
    "Task",
    "TaskOptions",
    "WorkerSettings",
    "dependency",
    "hookimpl",
    "inject",
]
