"""Whether a failed attempt is tried again."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from camora.context import Context
from camora.errors import UndeliverableError
from camora.interfaces.middleware import Executed, Middleware
from camora.interfaces.pool import ProcessDied
from camora.message import RetrySettings
from camora.retry import RetryPolicy, classify, from_wire
from camora.signals import Discard, Retry
from camora.steering import Again, Unstorable

__all__ = ["Retries", "decide"]

_DEFAULT = RetryPolicy()


def decide(policy: Any, context: Context, error: Exception) -> float | None:
    """Seconds until the next attempt, or None: pure but for the jitter.

    Precedence: the policy that was raised, the job's, the task's, the app's. `Retry` asks for itself: it needs no
    entry in `on`, and no policy at all.
    """
    if not isinstance(error, Retry):
        return None if policy is None else policy(context, error)
    chosen = error.policy or policy or _DEFAULT
    delay = chosen.wait(context.attempt) if isinstance(chosen, RetryPolicy) else chosen(context, error)
    return error.delay if delay is not None and error.delay is not None else delay


@lru_cache(maxsize=256)
def _from_wire(settings: RetrySettings) -> RetryPolicy:
    return from_wire(settings)


class Retries(Middleware):
    """Turns a failure that is to be tried again into `Again`; decorators retry in place, right here."""

    phase = "policy"

    def __init__(self, app_policy: Any) -> None:
        self._app_policy = app_policy
        self._decorated: dict[Any, Executed | None] = {}

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Run the attempt, and decide over its failure."""
        policy = self._policy(context)
        decorator = None if policy is None or isinstance(policy, RetryPolicy) else self._decorator(policy, call_next)
        try:
            return await (call_next if decorator is None else decorator)(context)
        except (Discard, UndeliverableError, ProcessDied, Unstorable):
            raise
        except Exception as error:
            if context.acknowledged:
                raise  # the message is gone: nothing is left to be tried again
            if not context.ran and not isinstance(error, Retry):
                raise  # refused before the function ran: not an attempt, so no policy has a say
            if decorator is not None:
                if getattr(error, "policy", None) is None:
                    raise  # the decorator has had its tries
                policy = None
            delay = decide(policy, context, error)
            if delay is None:
                raise
            if not math.isfinite(delay):
                raise ValueError(
                    f"{context.task.name}: its retry policy answered {delay!r}; seconds, or None"
                ) from error
            raise Again(max(0.0, delay)) from error

    def _policy(self, context: Context) -> Any:
        if context.message.retry is not None:
            return _from_wire(context.message.retry)
        return context.task.config.retry_policy or self._app_policy

    def _decorator(self, policy: Any, call_next: Executed) -> Executed | None:
        """The rest of the chain under this policy's decorator; None when the policy is no decorator."""
        if policy not in self._decorated:
            decorated = None
            if classify(policy) == "decorator":

                async def attempt(context: Context) -> Any:
                    return await call_next(context)

                decorated = policy(attempt)
            self._decorated[policy] = decorated
        return self._decorated[policy]
