"""The extension points: one file each, few methods, much meaning. Everything here is public and stable."""

from camora.interfaces.broker import Broker, BrokerState, Consumer, ConsumerSettings, JobState, Leases, LeaseVerdict
from camora.interfaces.capabilities import Capabilities, Support
from camora.interfaces.codec import Codec
from camora.interfaces.dead_letters import DeadLetters
from camora.interfaces.injector import Injector, JobScope
from camora.interfaces.middleware import Middleware
from camora.interfaces.observer import Event, Observer
from camora.interfaces.operations import Check, CheckResult, Command
from camora.interfaces.pool import Call, Pool, PoolSettings, ProcessDied, RemoteError, TaskExit
from camora.interfaces.queues import CancelResult, QueuedJob, Queues
from camora.interfaces.results import ResultBackend
from camora.interfaces.retry import RetryPolicyLike
from camora.interfaces.schedule import Fire, ScheduleRecord, ScheduleStore, Trigger

__all__ = [
    "Broker",
    "BrokerState",
    "Call",
    "CancelResult",
    "Capabilities",
    "Check",
    "CheckResult",
    "Codec",
    "Command",
    "Consumer",
    "ConsumerSettings",
    "DeadLetters",
    "Event",
    "Fire",
    "Injector",
    "JobScope",
    "JobState",
    "LeaseVerdict",
    "Leases",
    "Middleware",
    "Observer",
    "Pool",
    "PoolSettings",
    "ProcessDied",
    "QueuedJob",
    "Queues",
    "RemoteError",
    "ResultBackend",
    "RetryPolicyLike",
    "ScheduleRecord",
    "ScheduleStore",
    "Support",
    "TaskExit",
    "Trigger",
]
