"""What travels between the worker and a process of the pool, and how it is packed."""

from __future__ import annotations

import contextlib
import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from camora.builtin.pools.main_module import app_reference
from camora.context import Context
from camora.errors import ConfigurationError, EncodeError
from camora.interfaces.pool import Call, RemoteError, TaskExit
from camora.message import Delivery, Message
from camora.propagation import Carried
from camora.signals import Suspend

__all__ = ["JobView", "Parcel", "pack", "pack_error", "pack_value", "unpack", "view_of"]

_LARGEST_ERROR = 100_000
"""Bytes of a pickled exception; a larger one travels as (bounded) text."""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """What a context is made of again in the other process."""

    message: Message
    deliveries: int
    worker: str


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A call, packed. `target` is a reference, or what can be pickled itself: the method of a task object."""

    target: str | Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_async: bool
    task: str
    variables: Carried
    injected: dict[str, Any]
    app: str
    job: JobView | None


def view_of(context: Context | None) -> JobView | None:
    """The part of a context that travels."""
    if context is None:
        return None
    return JobView(message=context.message, deliveries=context.deliveries, worker=context.worker)


def pack(call: Call, variables: Carried) -> bytes:
    """A call as bytes. Raises `EncodeError` naming the argument that cannot be pickled."""
    by_value = not call.reference or inspect.ismethod(call.function)
    parcel = Parcel(
        target=call.function if by_value else call.reference,
        args=call.args,
        kwargs=dict(call.kwargs),
        is_async=call.is_async,
        task=call.task,
        variables=variables,
        injected=dict(call.injected),
        app=app_reference(call.app) if call.injected else "",
        job=view_of(call.context) if call.injected else None,
    )
    try:
        return pickle.dumps(parcel, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # pickling calls users' code
        raise _culprit(call, by_value, error) from error


def _culprit(call: Call, by_value: bool, error: Exception) -> Exception:
    named = {str(index): value for index, value in enumerate(call.args)} | dict(call.kwargs)
    for name, value in named.items():
        if (why := _unpicklable(value)) is not None:
            text = f"{call.task}: argument {name} ({type(value).__qualname__}) cannot go to another process: {why}"
            return EncodeError(text, path=name)
    for name, kind in call.injected.items():
        if (why := _unpicklable(kind)) is not None:
            return ConfigurationError(
                f"{call.task}: {kind!r}, the type of its parameter {name!r}, cannot be found by another process: "
                f"{why}. Define it at module level"
            )
    if by_value and (why := _unpicklable(call.function)) is not None:
        return ConfigurationError(
            f"{call.task}: its function cannot be found by another process: {why}. Define it at module level, or use "
            'execution="thread"'
        )
    return EncodeError(f"{call.task}: the call cannot go to another process: {error}")


def _unpicklable(value: Any) -> str | None:
    try:
        pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 -- as above
        return f"{type(error).__name__}: {error}"
    return None


def pack_value(value: Any, task: str) -> bytes:
    """A result as bytes; one that cannot be pickled becomes an `EncodeError`."""
    try:
        return pickle.dumps((value, None, None, True), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 -- as above
        return pack_error(
            EncodeError(
                f"{task}: its result ({type(value).__qualname__}) cannot leave its process: {type(error).__name__}: "
                f"{error}. Return plain data",
                path="result",
            )
        )


def pack_error(error: BaseException, *, ran: bool = True) -> bytes:
    """An exception as bytes: as text always, and whole where it can be rebuilt from its pickle.

    `ran` is False for one from before the function was called.
    """
    kind = RemoteError if isinstance(error, Exception) else TaskExit
    text = error if isinstance(error, RemoteError) else kind.of(error)
    whole = None
    if isinstance(error, (Exception, Suspend)):
        with contextlib.suppress(Exception):
            data = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
            if len(data) <= _LARGEST_ERROR and type(pickle.loads(data)) is type(error):  # noqa: S301 -- its own
                whole = data
    return pickle.dumps((None, text, whole, ran), pickle.HIGHEST_PROTOCOL)


def unpack(data: bytes, call: Call) -> Any:
    """The value, or the exception raised again with its `remote_traceback`. Raises `EncodeError` if unreadable.

    An exception from before the function was called has a true attribute `refused`.
    """
    try:
        value, text, whole, ran = pickle.loads(data)  # noqa: S301 -- from our own process, over a private pipe
    except Exception as error:
        raise EncodeError(
            f"{call.task}: its result cannot be read back: {type(error).__name__}: {error}", path="result"
        ) from error
    if text is None:
        return value
    raised = _rebuilt(text, whole)
    raise raised if ran or isinstance(raised, Suspend) else refused(raised)


def refused(error: Exception) -> Exception:
    """The same error, marked as one from before the function was called."""
    with contextlib.suppress(Exception):
        error.refused = True  # type: ignore[attr-defined]
    return error


def _rebuilt(text: RemoteError, whole: bytes | None) -> Exception | Suspend:
    if whole is not None:
        with contextlib.suppress(Exception):
            error: Exception | Suspend = pickle.loads(whole)  # noqa: S301 -- as above
            with contextlib.suppress(Exception):
                error.remote_traceback = text.remote_traceback  # type: ignore[union-attr]
            return error
    return text


def rebuilt_context(view: JobView, task: Any, port: Any) -> Context:
    """A context made again from its view."""
    message = view.message
    delivery = Delivery(id=message.id, queue=message.queue, body=b"", deliveries=view.deliveries)
    return Context(message, task, delivery=delivery, worker=view.worker, port=port)


def missing_app(names: Mapping[str, Any], task: str) -> ConfigurationError:
    """The error for a call whose dependencies nobody can make in its process."""
    return ConfigurationError(
        f"{task}: its dependencies ({', '.join(names)}) are made in the process that runs it, which imports the app "
        "for that: bind the app to a name at the top level of a module"
    )
