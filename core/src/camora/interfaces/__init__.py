"""The extension points: one file each, few methods, much meaning. Everything here is public and stable."""

from typing import TYPE_CHECKING

from camora.lazy import names_of

if TYPE_CHECKING:
    from camora.interfaces.broker import Broker, BrokerState, Consumer, ConsumerSettings, JobState, Leases, LeaseVerdict
    from camora.interfaces.capabilities import Capabilities, Support
    from camora.interfaces.codec import Codec
    from camora.interfaces.companions import Companions
    from camora.interfaces.dead_letters import DeadLetters
    from camora.interfaces.extension import Ending, Extension, FollowUp, Host, HostStores
    from camora.interfaces.injector import Injector, JobScope
    from camora.interfaces.journal import Journal
    from camora.interfaces.limits import Ask, Limit, Limits, LimitUse
    from camora.interfaces.middleware import Middleware
    from camora.interfaces.observer import (
        Event,
        JobCancelled,
        JobDeadLettered,
        JobDiscarded,
        JobDispatched,
        JobEvent,
        JobExpired,
        JobFailed,
        JobReceived,
        JobReleased,
        JobRetried,
        JobStarted,
        JobSucceeded,
        LeaseLost,
        Observer,
        QueuePaused,
        QueueResumed,
        ScheduleFired,
        WorkerEvent,
        WorkerStarted,
        WorkerStopping,
    )
    from camora.interfaces.operations import Check, CheckResult, Command
    from camora.interfaces.pool import Call, Pool, PoolSettings, ProcessDied, RemoteError, TaskExit
    from camora.interfaces.queues import CancelResult, QueuedJob, Queues
    from camora.interfaces.results import ResultBackend
    from camora.interfaces.retry import RetryPolicyLike
    from camora.interfaces.schedule import CatchUp, Fire, Overlap, ScheduleRecord, ScheduleStore, Trigger
    from camora.interfaces.types import Misfit, OtherTypes, TypeSupport
    from camora.interfaces.workers import Order, RunningJob, WorkerDirectory, WorkerInfo
    from camora.interfaces.workflows import START, Mark, Marked, Node, NodeState, WorkflowRecord, WorkflowStore
    from camora.plugin_options import TaskOption

__all__ = [
    "START",
    "Ask",
    "Broker",
    "BrokerState",
    "Call",
    "CancelResult",
    "Capabilities",
    "CatchUp",
    "Check",
    "CheckResult",
    "Codec",
    "Command",
    "Companions",
    "Consumer",
    "ConsumerSettings",
    "DeadLetters",
    "Ending",
    "Event",
    "Extension",
    "Fire",
    "FollowUp",
    "Host",
    "HostStores",
    "Injector",
    "JobCancelled",
    "JobDeadLettered",
    "JobDiscarded",
    "JobDispatched",
    "JobEvent",
    "JobExpired",
    "JobFailed",
    "JobReceived",
    "JobReleased",
    "JobRetried",
    "JobScope",
    "JobStarted",
    "JobState",
    "JobSucceeded",
    "Journal",
    "LeaseLost",
    "LeaseVerdict",
    "Leases",
    "Limit",
    "LimitUse",
    "Limits",
    "Mark",
    "Marked",
    "Middleware",
    "Misfit",
    "Node",
    "NodeState",
    "Observer",
    "Order",
    "OtherTypes",
    "Overlap",
    "Pool",
    "PoolSettings",
    "ProcessDied",
    "QueuePaused",
    "QueueResumed",
    "QueuedJob",
    "Queues",
    "RemoteError",
    "ResultBackend",
    "RetryPolicyLike",
    "RunningJob",
    "ScheduleFired",
    "ScheduleRecord",
    "ScheduleStore",
    "Support",
    "TaskExit",
    "TaskOption",
    "Trigger",
    "TypeSupport",
    "WorkerDirectory",
    "WorkerEvent",
    "WorkerInfo",
    "WorkerStarted",
    "WorkerStopping",
    "WorkflowRecord",
    "WorkflowStore",
]

if not TYPE_CHECKING:
    __getattr__ = names_of(
        __name__,
        {
            "camora.interfaces.broker": (
                "Broker",
                "BrokerState",
                "Consumer",
                "ConsumerSettings",
                "JobState",
                "LeaseVerdict",
                "Leases",
            ),
            "camora.interfaces.capabilities": ("Capabilities", "Support"),
            "camora.interfaces.codec": ("Codec",),
            "camora.interfaces.companions": ("Companions",),
            "camora.interfaces.dead_letters": ("DeadLetters",),
            "camora.interfaces.extension": ("Ending", "Extension", "FollowUp", "Host", "HostStores"),
            "camora.interfaces.journal": ("Journal",),
            "camora.interfaces.injector": ("Injector", "JobScope"),
            "camora.interfaces.limits": ("Ask", "Limit", "LimitUse", "Limits"),
            "camora.interfaces.middleware": ("Middleware",),
            "camora.interfaces.observer": (
                "Event",
                "JobCancelled",
                "JobDeadLettered",
                "JobDiscarded",
                "JobDispatched",
                "JobEvent",
                "JobExpired",
                "JobFailed",
                "JobReceived",
                "JobReleased",
                "JobRetried",
                "JobStarted",
                "JobSucceeded",
                "LeaseLost",
                "Observer",
                "QueuePaused",
                "QueueResumed",
                "ScheduleFired",
                "WorkerEvent",
                "WorkerStarted",
                "WorkerStopping",
            ),
            "camora.interfaces.operations": ("Check", "CheckResult", "Command"),
            "camora.interfaces.pool": ("Call", "Pool", "PoolSettings", "ProcessDied", "RemoteError", "TaskExit"),
            "camora.interfaces.queues": ("CancelResult", "QueuedJob", "Queues"),
            "camora.interfaces.results": ("ResultBackend",),
            "camora.interfaces.retry": ("RetryPolicyLike",),
            "camora.interfaces.schedule": ("CatchUp", "Fire", "Overlap", "ScheduleRecord", "ScheduleStore", "Trigger"),
            "camora.interfaces.types": ("Misfit", "OtherTypes", "TypeSupport"),
            "camora.interfaces.workflows": (
                "START",
                "Mark",
                "Marked",
                "Node",
                "NodeState",
                "WorkflowRecord",
                "WorkflowStore",
            ),
            "camora.interfaces.workers": ("Order", "RunningJob", "WorkerDirectory", "WorkerInfo"),
            "camora.plugin_options": ("TaskOption",),
        },
    )


def __dir__() -> list[str]:
    return __all__
