"""Running one delivery: whatever happens, the answer is an outcome."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from camora.clock import Clock
from camora.context import Context, JobPort
from camora.errors import DecodeError, PayloadError
from camora.failures import describe
from camora.interfaces.codec import Codec
from camora.interfaces.pool import ProcessDied, TaskExit
from camora.message import Delivery, Message
from camora.outcome import ErrorInfo, Outcome, OutcomeKind
from camora.registry import TaskRegistry
from camora.secrets import hide
from camora.settings import WorkerSettings
from camora.signals import Discard, Failure, Suspend
from camora.steering import Again, Expired, NotOurs, NotYet, TimedOut, Unstorable
from camora.task import AnyTask

__all__ = ["Executor", "Run", "StopReason"]

_LONGEST_PAUSE = 60.0
_SUCCEEDED = OutcomeKind.SUCCEEDED


class StopReason(enum.Enum):
    """Why the worker stops a run from outside."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease lost"
    SHUTDOWN = "shutdown"


class Run:
    """One delivery on its way through this worker, from receipt to settlement."""

    __slots__ = (
        "abandoned",
        "acknowledged",
        "context",
        "delivery",
        "message",
        "outcome",
        "overtaken",
        "parked",
        "reason",
        "settling",
        "task",
    )

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.message: Message | None = None
        self.context: Context | None = None
        self.task: asyncio.Task[None] | None = None
        self.reason: StopReason | None = None
        self.abandoned = False
        """True once it ignored its interruption and was settled without it."""
        self.settling = False
        """True once its settlement is on its way: from then on the broker's answer to that is the truth."""
        self.parked = False
        """True while it waits for a limit, and holds no slot of its lane."""
        self.outcome: Outcome | None = None
        """How it ended."""
        self.overtaken = False
        """True once its lease was lost after it had ended."""
        self.acknowledged = False
        """True once it was acknowledged before the run (`ack="before"`): then nothing gives it back."""

    def stop(self, reason: StopReason) -> None:
        """Interrupt the attempt where that is possible; its outcome tells why. Safe to repeat."""
        if self.reason is not None:
            return
        self.reason = reason
        if self.context is not None:
            self.context.cancelled = reason is StopReason.CANCELLED
            self.context.lease_lost = reason is StopReason.LEASE_LOST
            # Before there is a context the attempt has not begun, and looks at the reason itself: a task that is
            # cancelled before its first step would end without an outcome.
            if self.task is not None:
                self.task.cancel()

    @property
    def label(self) -> str:
        """Task and job, for logs."""
        return f"{self.message.task if self.message else 'undecoded message'} {self.delivery.id}"


def growing(times: int) -> float:
    """Seconds to wait after so many misses: 1, 2, 4 … 60."""
    return min(_LONGEST_PAUSE, 2.0 ** min(times, 10))


class Executor:
    """Decodes, looks the task up, and runs the chain. `run` never raises."""

    def __init__(
        self,
        *,
        tasks: TaskRegistry,
        codec: Codec,
        chain: Callable[[Context], Awaitable[Any]],
        settings: WorkerSettings,
        clock: Clock,
        worker: str,
        port: JobPort,
        largest: int,
        fanout: bool = False,
    ) -> None:
        self._tasks = tasks
        self._codec = codec
        self._chain = chain
        self._settings = settings
        self._clock = clock
        self._worker = worker
        self._port = port
        self._largest = largest
        self._fanout = fanout
        """True where a broker copies messages into queues of its own choice."""

    async def run(self, run: Run) -> Outcome:
        """Run the delivery to its outcome."""
        refused, task = self._admit(run)
        if refused is not None or task is None or run.message is None:
            return refused or Outcome(kind=OutcomeKind.RELEASED)
        context = run.context = Context(run.message, task, delivery=run.delivery, worker=self._worker, port=self._port)
        if run.reason is not None:
            return self._stopped(run)
        try:
            value = await self._chain(context)
        except asyncio.CancelledError as error:
            task_here = asyncio.current_task()
            if task_here is not None and not task_here.cancelling():
                # Nobody cancelled it: something inside raised this by itself, and that is a failure.
                return self._failed(context, TaskExit.of(error))
            return self._stopped(run)
        except Suspend as suspend:
            return self._suspended(context, suspend)
        except Exception as error:  # noqa: BLE001 -- whatever the job raises is its outcome
            return self._failed(context, error)
        if isinstance(value, Failure):
            text = hide(str(value.reason), _secrets(context))
            return Outcome(kind=OutcomeKind.FAILED, error=ErrorInfo(type="camora.Failure", text=text))
        return Outcome(kind=_SUCCEEDED, encoded=context.encoded)

    def _admit(self, run: Run) -> tuple[Outcome | None, AnyTask | None]:
        """Decode and look up; an outcome when the message cannot run here."""
        delivery = run.delivery
        if len(delivery.body) > self._largest:
            text = f"the message has {len(delivery.body)} bytes; at most {self._largest} are decoded"
            return _dead("too_large", "camora.errors.MessageTooLarge", text), None
        try:
            message = run.message = self._codec.admit(delivery.body)
        except DecodeError as error:
            if error.reason == "stale":
                self._note_stale(run)
            return _dead(error.reason, "camora.errors.DecodeError", str(error)), None
        if self._codec.authenticated and (elsewhere := self._misplaced(message, delivery)):
            return _dead("mismatch", "camora.errors.DecodeError", elsewhere), None
        if delivery.deliveries > self._settings.max_deliveries:
            text = (
                f"taken {delivery.deliveries - 1} times and never settled: it seems to kill its workers "
                f"(max_deliveries is {self._settings.max_deliveries})"
            )
            return _dead("poison", "camora.errors.PoisonMessage", text), None
        task = self._tasks.for_message(message.task, delivery.queue)
        if task is None:
            return self._unknown(message), None
        return None, task

    def _note_stale(self, run: Run) -> None:
        """It is genuine, and only too old: whoever waits for its end is to hear of it."""
        message = self._codec.decode(run.delivery.body)
        if not self._misplaced(message, run.delivery):
            run.message = message

    def _misplaced(self, message: Message, delivery: Delivery) -> str:
        """What is wrong when a genuine message lies where it was not sent; empty when nothing is."""
        if message.id != delivery.id:
            return f"the message of job {message.id} was put into the broker again, as {delivery.id}"
        if message.queue != delivery.queue and not self._fanout:
            return f"sent to the queue {message.queue!r}, it was put into {delivery.queue!r}"
        return ""

    def _unknown(self, message: Message) -> Outcome:
        """A rolling deploy heals by itself: another worker, or this one after its restart, may know the task."""
        if message.created:
            waited = (self._clock.now_ms() - max(message.created, message.due)) / 1000
        else:
            # Others need not say when they have made it: since when it is here, the pauses between its attempts tell.
            waited = sum(growing(times) for times in range(message.misses))
        if waited > self._settings.unknown_task_limit:
            text = f"no worker has known the task {message.task!r} for {waited:.0f} s"
            return _dead("unknown_task", "camora.errors.UnknownTask", text)
        error = ErrorInfo(type="camora.errors.UnknownTask", text=f"this worker has no task {message.task!r}")
        return Outcome(kind=OutcomeKind.RELEASED, delay=growing(message.misses), charged=True, error=error)

    def _stopped(self, run: Run) -> Outcome:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if run.reason is None and run.context is not None:
            # Its own task was cancelled, and not by the worker: by the job, or by a library that it uses.
            return self._failed(run.context, TaskExit.of(asyncio.CancelledError("the job cancelled its own task")))
        if run.reason is StopReason.CANCELLED:
            return Outcome(kind=OutcomeKind.CANCELLED)
        return Outcome(kind=OutcomeKind.RELEASED)

    def _suspended(self, context: Context, suspend: Suspend) -> Outcome:
        if context.acknowledged:
            text = (
                f"{context.task.name} was to go on later ({suspend}), and its message is gone: it was acknowledged "
                'before it ran. Leave out ack="before" for a task that sleeps or waits for signals'
            )
            return Outcome(kind=OutcomeKind.FAILED, error=ErrorInfo(type="camora.Suspend", text=text))
        now = self._clock.now_ms()
        return Outcome(kind=OutcomeKind.SUSPENDED, delay=(suspend.due(now) - now) / 1000)

    def _failed(self, context: Context, error: Exception) -> Outcome:
        secrets = _secrets(context)
        match error:
            case Again():
                told = describe(error.__cause__ or error, secrets=secrets)
                return Outcome(kind=OutcomeKind.RETRY, delay=error.delay, error=told)
            case Discard():
                told = ErrorInfo(type="camora.Discard", text=hide(str(error), secrets))
                return Outcome(kind=OutcomeKind.DISCARDED, error=told)
            case NotOurs():
                return Outcome(kind=OutcomeKind.RELEASED)
            case NotYet():
                return Outcome(kind=OutcomeKind.RELEASED, delay=error.delay)
            case Expired():
                return Outcome(kind=OutcomeKind.EXPIRED)
            case ProcessDied():
                told = describe(error, secrets=secrets)
                return Outcome(kind=OutcomeKind.CRASHED, delay=growing(context.deliveries - 1), error=told)
            case PayloadError():
                return Outcome(kind=OutcomeKind.FAILED, error=describe(error, secrets=secrets), reason="payload")
            case Unstorable():
                told = describe(error.__cause__ or error, secrets=secrets)
                return Outcome(kind=OutcomeKind.FAILED, error=told, reason="failed")
            case _ if not context.ran:
                return self._refused(context, describe(error, secrets=secrets))
            case _:
                told = describe(error, timeout=isinstance(error, TimedOut), secrets=secrets)
                return Outcome(kind=OutcomeKind.FAILED, error=told)

    def _refused(self, context: Context, error: ErrorInfo) -> Outcome:
        """A guard or a dependency failed before the function: given back, and only after many tries dead."""
        misses = context.message.misses
        if misses + 1 >= self._settings.max_deliveries:
            return Outcome(kind=OutcomeKind.FAILED, error=error, reason="refused")
        return Outcome(kind=OutcomeKind.RELEASED, delay=growing(misses), charged=True, error=error)


def _secrets(context: Context) -> Collection[str]:
    """The texts that must not be told of this job: as they came, and as its function sees them."""
    secrets = context.task.secrets
    if not secrets:
        return ()
    message = context.message
    return secrets.texts(message.args, message.kwargs) | secrets.texts(*context.arguments)


def _dead(reason: str, kind: str, text: str) -> Outcome:
    return Outcome(kind=OutcomeKind.FAILED, reason=reason, error=ErrorInfo(type=kind, text=text))
