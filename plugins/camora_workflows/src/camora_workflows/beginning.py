"""Envelopes of nodes that may begin."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from camora.interfaces import Host, NodeState
from camora.message import Envelope

from camora_workflows.plan import GIVEN, HEADER, Input, Spec, header_at, job_id

__all__ = ["begin", "enveloped"]


def begin(host: Host, workflow: str, node: NodeState, spec: Spec, *, source: int = -1) -> Envelope:
    """The job of a recorded node that begins now; `source` is the node whose end lets it, -1 where that is not known.

    Repeated, it has the same id. Raises `DecodeError`, `EncodeError` or `MessageTooLarge`.
    """
    headers = {HEADER: header_at(workflow, node.index, node.run)}
    if spec.input:
        headers[GIVEN] = f"{spec.input.value} {source if spec.input is not Input.ALL else -1}"
    elif node.gate is None:
        # Nothing, but it looks whether it is to run: somebody may cancel it when what it follows has ended, and it is
        # not published yet. Of what stands behind gates, whoever publishes it looks for that.
        headers[GIVEN] = f" {source}"
    return enveloped(host, spec, job_id(workflow, node.index, node.run), headers)


def enveloped(
    host: Host, spec: Spec, its_id: str, headers: Mapping[str, str], first: tuple[object, ...] = ()
) -> Envelope:
    """The envelope of a node's job under this id, with these headers added; `first` stands before its arguments."""
    message = host.codec.decode(spec.message)
    now = host.clock.now_ms()
    message = msgspec.structs.replace(
        message,
        id=its_id,
        args=[*first, *message.args] if first else message.args,
        created=now,
        due=message.due if spec.eta else now + spec.delay if spec.delay else 0,
        expires=message.expires if spec.expires is None else now + spec.expires,
        headers={**message.headers, **headers},
    )
    envelope = host.envelope(message)
    if spec.options:
        envelope = msgspec.structs.replace(envelope, options={**(envelope.options or {}), **spec.options})
    return envelope
