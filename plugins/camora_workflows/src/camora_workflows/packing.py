"""Dispatching a workflow that is recorded nowhere: all that may follow a job travels in its message.

That works where each node has one source, so that whoever ends a job knows what begins. Anything else needs a store.
"""

from __future__ import annotations

from typing import Any

import msgspec
from camora.dispatchable import Dispatchable
from camora.errors import MessageTooLarge, UnsupportedCapability
from camora.interfaces import START, Host

from camora_workflows.compiling import Compiler, Draft
from camora_workflows.drafting import write
from camora_workflows.plan import HEADER, Carried, CarriedNode, Kind, header_of

__all__ = ["Packer"]

_STORES = (
    "keep results in a store that keeps workflows, Camora(…, results='redis://…') or 'sqlite:///…' (also [results] url "
    "in camora.toml)"
)


class Packer:
    """Dispatches compositions of one app whose stores keep no workflows."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def dispatch(self, what: Dispatchable[Any], asked_id: str | None) -> tuple[str, str]:
        """Publish its first job with the rest; returns the id of the whole, and its name.

        Raises `UnsupportedCapability` for what needs a store, and `DispatchError`s as a dispatch of one job.
        """
        host = self._host
        workflow = asked_id or host.new_id()
        name = repr(what)[:200]
        compiler = Compiler(what, host.port)
        written = [await write(host, draft, workflow) for draft in _travelling(compiler, name)]
        first = written[0]
        assert first.envelope is not None
        carried = Carried(
            workflow=workflow,
            index=first.index,
            feeds=first.feeds,
            result=compiler.plan.result,
            nodes=tuple(CarriedNode(index=node.index, spec=node.spec, feeds=node.feeds) for node in written[1:]),
        )
        message = host.codec.decode(first.envelope.body)
        message = msgspec.structs.replace(message, headers={**message.headers, HEADER: header_of(carried)})
        try:
            envelope = host.envelope(message)
        except MessageTooLarge as error:
            raise MessageTooLarge(
                f"{name}: its first message, with which all that follows travels, has {error.size} bytes; at most "
                f"{error.limit} may. With a store, only what begins is sent: {_STORES}",
                size=error.size,
                limit=error.limit,
            ) from None
        await host.publish([msgspec.structs.replace(envelope, options=first.envelope.options)])
        return workflow, name


def _travelling(compiler: Compiler, name: str) -> list[Draft]:
    """All nodes, as long as they can travel: looked at one by one, for a group may have no end."""
    found: list[Draft] = []
    fed: set[int] = set()
    for draft in compiler.drafts():
        alone = draft.kind is Kind.JOB and (draft.gate is None) == bool(found) and fed.isdisjoint(draft.feeds)
        if not alone or (draft.gate is not None and draft.gate != START):
            raise UnsupportedCapability(
                f"{name}: a workflow in which jobs run side by side, or wait for several, is recorded in a store "
                f"before it starts, and neither this app's broker nor its result backend keeps workflows: {_STORES}",
                capability="workflows",
            )
        found.append(draft)
        fed.update(draft.feeds)
    return found
