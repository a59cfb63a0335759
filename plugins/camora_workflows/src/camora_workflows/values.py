"""The values of nodes, as plain data, read from the store: of jobs, of joins (lists or mappings), through gates."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from camora.errors import PayloadError
from camora.interfaces import Codec, NodeState, WorkflowStore

from camora_workflows.plan import Kind, Spec, outcome_from, unpack

__all__ = ["TooMuch", "Values", "feeding"]

_FIRST, _MOST = 20, 2000
"""How many nodes the first page has, and how many one has at most."""
_PAGE = 4 * 1024 * 1024
"""About how many bytes a page is to have: values may be small or large, and are seen only when they are read."""


class TooMuch(Exception):
    """The values are larger than they may be together."""


async def feeding(store: WorkflowStore, workflow: str, index: int) -> AsyncIterator[NodeState]:
    """The nodes that feed this one, in order of index; a page of them is in memory at a time."""
    after, limit = -1, _FIRST
    while True:
        page = await store.nodes(workflow, after=after, limit=limit, feeding=index)
        for node in page:
            yield node
        if len(page) < limit:
            return
        after, limit = page[-1].index, _fitting(page)


async def _ends(store: WorkflowStore, workflow: str, index: int) -> AsyncGenerator[Sequence[NodeState], None]:
    """How the nodes that feed this one ended, page by page. To be closed: the store looks for the next page already."""

    def ask(after: int, limit: int) -> asyncio.Task[Sequence[NodeState]]:
        return asyncio.ensure_future(store.nodes(workflow, after=after, limit=limit, feeding=index, bare=True))

    limit = _FIRST
    asked = ask(-1, limit)
    try:
        while len(page := await asked) == limit:
            limit = _fitting(page)
            asked = ask(page[-1].index, limit)
            yield page
        yield page
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


def _fitting(page: Sequence[NodeState]) -> int:
    """How many nodes the next page is to have, judging by this one."""
    each = sum([len(node.outcome) + len(node.spec) for node in page]) / len(page) + 1
    return max(1, min(_MOST, int(_PAGE / each)))


class Values:
    """Reads values of one workflow. `room` is how many encoded bytes it may read in all; None: any number."""

    def __init__(self, store: WorkflowStore, codec: Codec, workflow: str, *, room: int | None = None) -> None:
        self._store = store
        self._codec = codec
        self._workflow = workflow
        self._room = room

    async def of(self, node: NodeState) -> Any:
        """What a node that has succeeded came to.

        Raises `TooMuch`, and `PayloadError` where there is no value: its job keeps none, or it is not there any more.
        """
        spec: Spec = unpack(Spec, node.spec)
        if spec.kind is Kind.JOB:
            return self._of_job(node, spec)
        if spec.kind is Kind.GATE:
            async for source in feeding(self._store, self._workflow, node.index):
                return await self.of(source)
            raise PayloadError(f"workflow {self._workflow}: nothing feeds node {node.index}, so it has no value")
        found = await self.listed(node.index, spec.sources)
        if spec.names:
            return dict(zip(spec.names, found, strict=True))
        return [item for items in found for item in items] if spec.flat else found

    async def listed(self, index: int, order: tuple[int, ...] = ()) -> list[Any]:
        """The values of all nodes that feed this one, in this order, or that of their indexes."""
        found: dict[int, Any] = {}
        async with contextlib.aclosing(_ends(self._store, self._workflow, index)) as pages:
            async for page in pages:
                others = []
                for source in page:
                    value = outcome_from(source.outcome).value if source.outcome else None
                    if value is not None:  # only a job has one of its own
                        found[source.index] = self._decoded(value)
                    else:
                        others.append(source.index)
                for other in await self._whole(others):
                    found[other.index] = await self.of(other)
        return [found[source] for source in order or sorted(found)]

    async def _whole(self, indexes: Sequence[int]) -> Sequence[NodeState]:
        """These nodes, with what they are."""
        found = (
            [node for node in await self._store.read(self._workflow, indexes) if node is not None] if indexes else []
        )
        if len(found) < len(indexes):
            raise PayloadError(f"the workflow {self._workflow} is gone from its store, and its values with it")
        return found

    def _of_job(self, node: NodeState, spec: Spec) -> Any:
        value = outcome_from(node.outcome).value if node.outcome else None
        if value is None:
            how = f"came to {node.status or 'nothing yet'}" if node.status != "succeeded" else "keeps no result"
            raise PayloadError(
                f"workflow {self._workflow}: {spec.task} (node {node.index}) {how}, so there is nothing to hand over",
                task=spec.task,
            )
        return self._decoded(value)

    def _decoded(self, value: bytes) -> Any:
        if self._room is not None:
            self._room -= len(value)
            if self._room < 0:
                raise TooMuch
        return self._codec.decode_value(value)
