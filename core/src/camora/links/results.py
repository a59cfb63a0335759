"""Results are encoded inside the chain, so that one that cannot be is a failure of the job like any other."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from camora.context import Context
from camora.errors import EncodeError
from camora.interfaces.codec import Codec
from camora.interfaces.middleware import Executed, Middleware
from camora.signals import Failure, Recorded
from camora.steering import Unstorable
from camora.task import AnyTask

__all__ = ["Results"]


class Results(Middleware):
    """Unstructures the value by the task's annotated return type, and encodes it."""

    phase = "results"

    def __init__(
        self, codec: Codec, unstructure: Callable[[AnyTask, Any], Any], limit: int, needed: AbstractSet[str]
    ) -> None:
        self._codec = codec
        self._unstructure = unstructure
        self._limit = limit
        self._needed = needed
        """Headers of messages whose result is needed though nobody keeps it."""

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Encode what comes back, unless nobody wants it."""
        context.encoder = self._encoded
        value = await call_next(context)
        context.encoded = value.encoded if isinstance(value, Recorded) else self._encoded(context, value)
        return value

    def _encoded(self, context: Context, value: Any) -> bytes | None:
        keep = context.message.keep_result
        if not (context.task.config.keep_result if keep is None else keep) and self._needed.isdisjoint(context.headers):
            return None
        if isinstance(value, Failure):
            return None
        try:
            encoded = self._codec.encode_value(self._unstructure(context.task, value))
        except EncodeError as error:
            raise Unstorable(f"{context.task.name}: its result cannot be stored: {error}") from error
        if len(encoded) > self._limit:
            raise Unstorable(
                f"{context.task.name}: its result has {len(encoded)} bytes; at most {self._limit} are stored. "
                "Store it elsewhere and return where"
            )
        return encoded
