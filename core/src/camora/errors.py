"""Every error Camora raises, in one tree.

```
CamoraError
├─ ConfigurationError        your set-up, found at start
│  ├─ UnknownPlugin            nothing installed offers that name or scheme
│  ├─ PluginConflict           two plugins offer the same name
│  ├─ PluginLoadError          a plugin does not import, or was built for another hook API
│  ├─ SettingsError            wrong settings; carries all problems at once
│  ├─ DuplicateTask            two tasks under one name
│  └─ MissingDependency        a parameter that nobody provides
├─ DispatchError             nothing was enqueued
│  ├─ EncodeError              an argument that cannot travel; carries its path
│  ├─ PayloadError             arguments do not fit the task; carries the field (also an UndeliverableError)
│  ├─ MessageTooLarge          carries size and limit, in bytes
│  ├─ BrokerUnavailable        the broker did not answer in time
│  ├─ UnsupportedCapability    the broker cannot do what was asked
│  └─ DispatchUncertain        it may have been enqueued: the answer was lost; carries the job id
├─ UndeliverableError        a message that can never run: it goes to the dead letters
│  ├─ DecodeError              the bytes are no message
│  ├─ PayloadError
│  ├─ PoisonMessage            taken too often without ever settling
│  └─ UnknownTask              no worker knew the task, for as long as it was retried
└─ ResultError               waiting for a job ended otherwise than with its value
   ├─ JobFailed                carries the remote error
   │  └─ JobTimeout              the job ran longer than its timeout
   ├─ JobDiscarded
   ├─ JobExpired
   ├─ JobCancelled
   ├─ ResultTimeout            the job is not finished yet
   ├─ ResultExpired            it finished, its result is gone
   └─ ResultsDisabled          the app, or the task, keeps no results
```

`Retry` and `Discard` (in `camora.signals`) are signals, not errors, so `except CamoraError` in a task lets them pass.
Every class here survives `pickle` and `copy`, because errors cross process boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "BrokerUnavailable",
    "CamoraError",
    "ConfigurationError",
    "DecodeError",
    "DispatchError",
    "DispatchUncertain",
    "DuplicateTask",
    "EncodeError",
    "JobCancelled",
    "JobDiscarded",
    "JobExpired",
    "JobFailed",
    "JobTimeout",
    "MessageTooLarge",
    "MissingDependency",
    "PayloadError",
    "PluginConflict",
    "PluginLoadError",
    "PoisonMessage",
    "ResultError",
    "ResultExpired",
    "ResultTimeout",
    "ResultsDisabled",
    "SettingsError",
    "UndeliverableError",
    "UnknownPlugin",
    "UnknownTask",
    "UnsupportedCapability",
]


def _rebuild(cls: type[CamoraError], args: tuple[Any, ...], state: dict[str, Any]) -> CamoraError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class CamoraError(Exception):
    """The root: everything Camora raises for a reason of its own."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only data would be lost by Exception's own way of pickling.
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigurationError(CamoraError):
    """The set-up is wrong; raised at start, never in the middle of work."""


class UnknownPlugin(ConfigurationError):
    """No installed plugin offers this name or URL scheme."""


class PluginConflict(ConfigurationError):
    """Two plugins offer the same name, provider or scheme."""


class PluginLoadError(ConfigurationError):
    """A plugin cannot be used: it does not import, has unknown hooks, or returns the wrong thing."""


class SettingsError(ConfigurationError):
    """Settings are wrong. `problems` holds every mistake, one line of text each."""

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class DuplicateTask(ConfigurationError):
    """Two tasks would share one name."""


class MissingDependency(ConfigurationError):
    """A task asks for a type that no dependency provides. `problems` names every one."""

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class DispatchError(CamoraError):
    """The job was not enqueued."""


class UndeliverableError(CamoraError):
    """A message that can never run; it is kept in the dead letters."""


class EncodeError(DispatchError):
    """A value cannot travel. `path` says which one, for example `order.items[3].callback`."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class PayloadError(DispatchError, UndeliverableError):
    """Arguments do not fit the task's parameters. `field` names the first that does not."""

    def __init__(self, message: str, *, task: str = "", field: str = "") -> None:
        super().__init__(message)
        self.task = task
        self.field = field


class MessageTooLarge(DispatchError):
    """The encoded message has `size` bytes; `limit` is the most that may travel."""

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class BrokerUnavailable(DispatchError):
    """The broker cannot be reached, or did not answer within `dispatch_timeout`."""


class UnsupportedCapability(DispatchError, ConfigurationError):
    """The broker in use cannot do what was asked. `capability` names it."""

    def __init__(self, message: str, *, capability: str = "") -> None:
        super().__init__(message)
        self.capability = capability


class DispatchUncertain(DispatchError):
    """The broker's answer was lost: the job may be enqueued.

    Dispatching again with `options(job_id=error.job_id)` cannot double it where the broker knows ids (its capability
    `dedup`); elsewhere the job may run twice. With `final`, a dispatch does not do so by itself: the broker has tried
    for as long as it was told to.
    """

    def __init__(self, message: str, *, job_id: str, final: bool = False) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.final = final


class DecodeError(UndeliverableError):
    """The bytes are not a message this version can read, or not one it trusts.

    `reason` is what the dead letter says: `undecodable`, or of a signed message `unsigned`, `unknown_key`, `forged`,
    `stale` or `mismatch`.
    """

    def __init__(self, message: str, *, reason: str = "undecodable") -> None:
        super().__init__(message)
        self.reason = reason


class PoisonMessage(UndeliverableError):
    """Taken `deliveries` times, and no worker ever lived to settle it."""

    def __init__(self, message: str, *, deliveries: int) -> None:
        super().__init__(message)
        self.deliveries = deliveries


class UnknownTask(UndeliverableError):
    """No task is registered under this name."""

    def __init__(self, message: str, *, task: str) -> None:
        super().__init__(message)
        self.task = task


class ResultError(CamoraError):
    """Waiting for `job_id` ended otherwise than with its value."""

    def __init__(self, message: str, *, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class JobFailed(ResultError):
    """The job failed for good.

    `error_type` is the qualified name of the exception raised in the worker, `error_text` its message and
    `traceback` the formatted remote traceback (empty for a `Failure` that was returned).
    """

    def __init__(
        self, message: str, *, job_id: str = "", error_type: str = "", error_text: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message, job_id=job_id)
        self.error_type = error_type
        self.error_text = error_text
        self.traceback = traceback


class JobTimeout(JobFailed):
    """The job ran longer than its timeout and was stopped."""


class JobDiscarded(ResultError):
    """The task said `Discard`: finished, on purpose without a result."""


class JobExpired(ResultError):
    """The job was not started before its `expires`, and was dropped."""


class JobCancelled(ResultError):
    """The job was cancelled."""


class ResultTimeout(ResultError):
    """The job is not finished within the time given; it goes on running."""


class ResultExpired(ResultError):
    """Nothing is known of this job (any more): results are kept for `[results] ttl`."""


class ResultsDisabled(ResultError):
    """This app or this task keeps no results."""
