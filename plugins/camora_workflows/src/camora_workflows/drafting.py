"""From a draft to what is recorded: its message, checked and as the app's middleware hands it on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
from camora.errors import DispatchError, EncodeError, MessageTooLarge, PayloadError
from camora.interfaces import Host, Node
from camora.message import Envelope, Message
from camora.signature import Signature

from camora_workflows.compiling import Draft
from camora_workflows.plan import CHUNK, HEADER, Spec, header_at, job_id, pack
from camora_workflows.spots import told_where

__all__ = ["Written", "write"]


class Written(msgspec.Struct, gc=False, frozen=True):
    """A node, ready to be recorded. Of a job there is the envelope that it would be sent in now."""

    index: int
    feeds: tuple[int, ...]
    gate: int | None
    spec: Spec
    envelope: Envelope | None = None

    def node(self) -> Node:
        """As it is recorded."""
        return Node(index=self.index, spec=pack(self.spec), feeds=self.feeds, gate=self.gate)


async def write(host: Host, draft: Draft, workflow: str) -> Written:
    """Write one node. Raises `DispatchError`s as a dispatch of the job by itself does, and they name its place."""
    feeds = tuple(draft.feeds)
    if draft.signature is None:
        spec = Spec(
            kind=draft.kind,
            sources=draft.sources,
            handler=draft.handler,
            side=draft.side,
            name=draft.name,
            names=draft.names,
            flat=draft.flat,
        )
        return Written(draft.index, feeds, draft.gate, spec)
    options = draft.signature.options_
    try:
        message = await _message(host, draft, draft.signature, workflow)
        envelope = host.envelope(message)
    except (EncodeError, PayloadError, MessageTooLarge) as error:
        if draft.spot is None:
            raise
        raise told_where(error, draft.spot) from error.__cause__
    if options.owned:
        envelope = msgspec.structs.replace(envelope, options={**(envelope.options or {}), **options.owned})
    moment = isinstance(options.expires, datetime)
    eta = options.eta is not None
    spec = Spec(
        task=message.task,
        queue=message.queue,
        message=envelope.body,
        delay=0 if eta or not message.due else message.due - message.created,
        eta=eta,
        expires=None if moment or message.expires is None else message.expires - message.created,
        options=dict(options.owned) if options.owned else None,
        input=draft.input,
        sources=draft.sources,
        handler=draft.handler,
        side=draft.side,
        name=draft.name,
    )
    return Written(draft.index, feeds, draft.gate, spec, envelope)


async def _message(host: Host, draft: Draft, signature: Signature[Any], workflow: str) -> Message:
    its_id = job_id(workflow, draft.index)  # one that was asked for is that of the whole
    headers = {HEADER: header_at(workflow, draft.index)}
    message = host.message(signature, first=1 if draft.input else 0, job_id=its_id, headers=headers)
    if draft.items is not None:
        others: Iterator[Signature[Any]] = (
            Signature(signature.task, (item,), {}, immutable=True) for item in draft.items[1:]
        )
        items = [_first_argument(message), *(_first_argument(host.message(other)) for other in others)]
        headers = {**message.headers, CHUNK: str(len(items))}
        message = msgspec.structs.replace(message, headers=headers, args=[items], kwargs={})
    passed = await host.pass_through(message)
    if passed.id != its_id or HEADER not in passed.headers:
        raise DispatchError(
            f"{message.task}: a middleware's dispatch took the id or the header {HEADER!r} from the message; a job of "
            "a workflow needs both"
        )
    return passed


def _first_argument(message: Message) -> Any:
    """The one argument that a job of a map has; all that has a name travels by name."""
    return message.args[0] if message.args else next(iter(message.kwargs.values()))
