"""Workflows in Redis: for the workers and dispatchers of any number of processes and machines."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import msgspec
from camora.errors import EncodeError
from camora.interfaces.workflows import Mark, Marked, Node, NodeState, WorkflowRecord, WorkflowStore

from camora_redis.batches import batches
from camora_redis.calling import answered
from camora_redis.graph_rows import come_to, ends_from, meta_of, record_from, states_from
from camora_redis.keeping import kept
from camora_redis.link import Link
from camora_redis.opening import check_server
from camora_redis.scripting import Script, script
from camora_redis.store import Store

__all__ = ["RedisWorkflowStore"]

_CREATE, _ADD, _START = script("workflow_create"), script("workflow_add"), script("workflow_start")
_END, _REOPEN, _PASSED = script("workflow_end"), script("workflow_reopen"), script("workflow_passed")
_READ, _NODES, _LIST = script("workflow_read"), script("workflow_nodes"), script("workflow_list")
_FINISH, _GET, _DELETE = script("workflow_finish"), script("workflow_get"), script("workflow_delete")
_LARGEST_END = 32 * 1024 * 1024
"""Bytes of marks that travel together. More come in several steps: then the last of them tells what was completed."""
_MOST_MARKS = 10_000
_MOST_WORKFLOWS = 200
"""Of how many marks travel together: the server does nothing else meanwhile."""
_HIGHEST = 2**32 - 1
"""Indexes take four bytes."""
_PAGE = 500
"""How many nodes are read in one step at most."""
_BARE_PAGE = 2000
"""Of how many nodes it is read in one step how they ended."""
_NO_SUCH, _STOOD = ord("0"), ord("2")
"""What the script says of a mark: that there is no such node or run, or that it had ended before."""
_UNKNOWN = Marked(known=False)

_Piece = tuple[str, list[int]]
"""A workflow, and the places of some of its marks."""

_pack = msgspec.msgpack.Encoder().encode


class RedisWorkflowStore(WorkflowStore):
    """Each method is one script. In a cluster all keys of a workflow lie in one slot, with those of its shard.

    What is too large for one answer, or for one request, is read and recorded in several.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"RedisWorkflowStore({store.label})")

    def __repr__(self) -> str:
        return f"RedisWorkflowStore({self._store.label!r})"

    async def open(self) -> None:
        """Connect, and look what server it is."""
        await check_server(self._link)

    def _key(self, workflow_id: str) -> str:
        return self._store.keys.shard(workflow_id, f"workflow:record:{workflow_id}")

    async def _run(self, what: Script, workflow_id: str, *words: Any) -> Any:
        return await answered(self._link, self._link.run(what, (self._key(workflow_id),), workflow_id, *words))

    # Recording

    async def create(self, record: WorkflowRecord) -> bool:
        """One step."""
        changed = max(record.created, record.changed)
        return bool(await self._run(_CREATE, record.id, record.name, record.plan, record.created, changed))

    async def add(self, workflow_id: str, nodes: Sequence[Node], now: int = 0) -> bool:
        """One step for some hundreds."""
        recorded = False
        for batch in batches(nodes, lambda node: len(node.spec)) if nodes else [[]]:
            indexes = [node.index for node in batch]
            if max(indexes, default=0) > _HIGHEST:
                raise EncodeError(
                    f"workflow {workflow_id} has a node {max(indexes)}, and Redis keeps none above {_HIGHEST}: make "
                    "several workflows of it"
                )
            columns = _pack((indexes, [meta_of(node) for node in batch]))
            recorded = bool(await self._run(_ADD, workflow_id, now, columns, *[node.spec for node in batch]))
            if not recorded:
                break
        return recorded

    async def start(self, workflow_id: str, plan: bytes, now: int) -> bool:
        """One step; then as many replicas have all of it as a dispatch waits for (`wait_replicas`).

        Raises `BrokerUnavailable` where they do not: it has started all the same.
        """
        replicas = self._store.settings.wait_replicas
        if not replicas:
            return bool(await self._run(_START, workflow_id, now, plan))
        call = self._link.run_copied(replicas, _START, (self._key(workflow_id),), workflow_id, now, plan)
        return bool(await answered(self._link, call))

    # Running

    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        """One step for some hundred workflows; in a cluster for those of one shard."""
        sizes = [len(mark.outcome) for mark in marks]
        by_workflow: dict[str, list[int]] = {}
        for place, mark in enumerate(marks):
            by_workflow.setdefault(mark.workflow, []).append(place)
        by_shard: dict[str, list[_Piece]] = {}
        for workflow_id, places in by_workflow.items():
            shard = by_shard.setdefault(self._store.keys.shard(workflow_id, ""), [])
            for some in batches(places, sizes.__getitem__, _LARGEST_END, _MOST_MARKS):
                shard.append((workflow_id, some))
        found: list[Marked] = [_UNKNOWN] * len(marks)
        ends = [self._end(pieces, marks, sizes, now, found) for pieces in by_shard.values()]
        await (ends[0] if len(ends) == 1 else asyncio.gather(*ends))
        return found

    async def _end(
        self, pieces: list[_Piece], marks: Sequence[Mark], sizes: Sequence[int], now: int, found: list[Marked]
    ) -> None:
        """End what is in these pieces, one after the other; what became of each mark goes to its place."""

        def size(piece: _Piece) -> int:
            return sum(map(sizes.__getitem__, piece[1]))

        for batch in batches(pieces, size, _LARGEST_END, _MOST_WORKFLOWS):
            columns: list[tuple[str, list[int], list[int] | bool]] = []
            outcomes: list[bytes] = []
            for workflow_id, places in batch:
                some = [marks[place] for place in places]
                runs = [mark.run for mark in some]
                columns.append((workflow_id, [mark.index for mark in some], runs if any(runs) else False))
                outcomes += [come_to(mark.status, mark.outcome) for mark in some]
            answers = await self._run(_END, batch[0][0], now, _pack(columns), *outcomes)
            for (workflow_id, places), answer in zip(batch, answers, strict=True):
                told = await self._marked(workflow_id, [marks[place] for place in places], answer)
                for place, marked in zip(places, told, strict=True):
                    found[place] = marked

    async def _marked(self, workflow_id: str, marks: Sequence[Mark], answer: Any) -> Iterable[Marked]:
        if answer is None:
            return [_UNKNOWN] * len(marks)
        unfinished, letters, follow, rows, large = answer
        nothing = Marked(open=unfinished)
        if not rows and not large:
            return [_UNKNOWN if letter == _NO_SUCH else nothing for letter in letters]
        states = {state.index: state for state in states_from(rows)}
        if large:
            # What has ended by now is the business of whoever ended it.
            others = await self.read(workflow_id, large)
            states |= {one.index: one for one in others if one is not None}
        targets: dict[int, list[NodeState]] = {}
        for place, target in zip(follow[::2], follow[1::2], strict=True):
            if target in states and not states[target].status:
                targets.setdefault(place - 1, []).append(states[target])
        return [
            _UNKNOWN
            if letter == _NO_SUCH
            else Marked(
                standing=states.get(mark.index) if letter == _STOOD else None,
                targets=tuple(targets.get(place, ())),
                open=unfinished,
            )
            for place, (mark, letter) in enumerate(zip(marks, letters, strict=True))
        ]

    async def reopen(self, workflow_id: str, runs: Mapping[int, int], now: int) -> bool:
        """One step."""
        columns = _pack((list(runs), list(runs.values())))
        return bool(runs) and bool(await self._run(_REOPEN, workflow_id, now, columns))

    async def passed(self, workflow_id: str, gate: int, index: int, now: int, run: int = 0) -> None:
        """One step."""
        await self._run(_PASSED, workflow_id, now, gate, index, run)

    async def finish(self, workflow_id: str, status: str, keep: float, now: int) -> bool:
        """One step; then all its keys expire."""
        return bool(await self._run(_FINISH, workflow_id, now, status, kept(keep)))

    # Looking

    async def read(self, workflow_id: str, indexes: Sequence[int]) -> Sequence[NodeState | None]:
        """One look; several where they are large."""
        states: dict[int, NodeState] = {}
        left = list(dict.fromkeys(indexes))
        while left:
            looked, rows = await self._run(_READ, workflow_id, _pack(left[:_PAGE]))
            states |= {state.index: state for state in states_from(rows)}
            del left[:looked]
        return [states.get(index) for index in indexes]

    async def nodes(
        self,
        workflow_id: str,
        *,
        after: int = -1,
        limit: int = 500,
        feeding: int | None = None,
        gate: int | None = None,
        unfinished: bool = False,
        unsuccessful: bool = False,
        bare: bool = False,
    ) -> Sequence[NodeState]:
        """One look; several where they are large, or lie far apart."""
        only = "open" if unfinished else "bad" if unsuccessful else ""
        name = f"s{feeding}" if feeding is not None else f"g{gate}" if gate is not None else "a"
        page: list[NodeState] = []
        more = 1
        while more and len(page) < limit:
            wanted = min(limit - len(page), _BARE_PAGE if bare else _PAGE)
            more, after, rows = await self._run(_NODES, workflow_id, name, after, wanted, only, int(bare))
            page += ends_from(rows) if bare else states_from(rows)
        return page

    async def get(self, workflow_id: str) -> WorkflowRecord | None:
        """One look."""
        found = await self._run(_GET, workflow_id)
        return None if found is None else record_from(workflow_id, *found)

    async def list(
        self,
        *,
        after: str = "",
        limit: int = 100,
        state: str = "",
        status: str = "",
        changed_before: int | None = None,
    ) -> Sequence[WorkflowRecord]:
        """A look for some hundreds; in a cluster at each shard of them."""
        if limit <= 0:
            return []
        before = "" if changed_before is None else changed_before
        shards = self._store.keys.shards("workflow:record:")
        parts = await asyncio.gather(*(self._list(shard, after, limit, state, before, status) for shard in shards))
        return list(heapq.merge(*parts, key=lambda record: record.id))[:limit]

    async def _list(
        self, shard: str, last: str | bytes, limit: int, state: str, before: int | str, status: str
    ) -> Sequence[WorkflowRecord]:
        page: list[WorkflowRecord] = []
        more = 1
        while more and len(page) < limit:
            call = self._link.run(_LIST, (shard,), "", last, limit - len(page), state, before, status)
            more, last, rows = await answered(self._link, call)
            page += [record_from(row[0].decode(), *row[1:]) for row in rows]
        return page

    async def delete(self, workflow_ids: Sequence[str], *, state: str = "") -> int:
        """One step for each."""
        gone = [self._run(_DELETE, workflow_id, state) for workflow_id in dict.fromkeys(workflow_ids)]
        return sum(await asyncio.gather(*gone))

    # Its end

    def twin(self) -> Self:
        """Another one on the same data, with connections of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()
