"""What is wrong with a workflow that stands still: found by looking at its nodes, and at the broker for its jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs
from camora.errors import UnsupportedCapability
from camora.interfaces.extension import Host
from camora.interfaces.workflows import START, NodeState, WorkflowRecord, WorkflowStore

from camora_workflows.consequences import SUCCEEDED
from camora_workflows.plan import FAILURES, SKIPPED, Kind
from camora_workflows.shapes import Shape, shapes_of
from camora_workflows.whereabouts import find_job

__all__ = ["Examination", "Finding", "examine", "runs_once"]

_PAGE = 500


@attrs.frozen
class Finding:
    """One thing to mend. `what` is stable: `abandoned`, `unpublished`, `undone`, `lost` or `unfinished`."""

    what: str
    text: str
    nodes: tuple[int, ...] = ()


async def examine(
    host: Host, store: WorkflowStore, record: WorkflowRecord, *, abandon: float, quiet: float
) -> list[Finding]:
    """All that is to be mended of a workflow now. Reads all its nodes. Raises `BrokerUnavailable`.

    A recording is abandoned when it has not grown for `abandon` seconds. Where the broker cannot be asked for its jobs,
    those of a workflow that has not changed for `quiet` seconds are taken for lost; so are those that run at most once.
    """
    if record.state == "finished":
        return []
    still = (host.clock.now_ms() - record.changed) / 1000
    if record.state == "recording":
        text = f"its recording stopped at {record.nodes:,} nodes and never started: whoever dispatched it has died"
        return [Finding("abandoned", text)] if still >= abandon else []
    looked = Examination(record, await shapes_of(store, record.id))
    found = [*looked.unpublished(), *looked.undone()]
    if lost := await looked.lost(host, store, doubt=still >= quiet):
        found.append(looked.told_lost(lost))
    if record.open == 0:
        found.append(Finding("unfinished", "all its nodes have ended, and the whole was not finished"))
    return found


class Examination:
    """One workflow that runs, as it was when its record and its nodes were read."""

    def __init__(self, record: WorkflowRecord, shapes: Mapping[int, Shape]) -> None:
        self._record = record
        self._shapes = shapes
        self._decided = frozenset(self._find_decided())

    def begun(self) -> Iterator[Shape]:
        """The jobs that the broker should have: nothing holds them back, and they have not ended."""
        for shape in self._shapes.values():
            free = shape.gate is None or (self._is_open(shape.gate) and self._is_passed(shape))
            held = shape.ended or shape.waiting or shape.index in self._decided
            if shape.kind is Kind.JOB and free and not held:
                yield shape

    async def lost(self, host: Host, store: WorkflowStore, *, doubt: bool) -> list[int]:
        """Those of them that the broker does not have. Where that says nothing: none, or all if there is `doubt`.

        It cannot be asked, or it has no job that runs, because that is acknowledged before.
        """
        workflow, begun = self._record.id, list(self.begun())
        try:
            missing = [one.index for one in begun if await find_job(host, workflow, one.index, one.run) is None]
        except UnsupportedCapability:
            missing = [shape.index for shape in begun] if doubt else []
        if not doubt:
            missing = [index for index in missing if not runs_once(host, self._shapes[index].task)]
        # A job's end is marked before its message goes: what has ended meanwhile was there.
        found: list[int] = []
        for begin in range(0, len(missing), _PAGE):
            page = await store.read(self._record.id, missing[begin : begin + _PAGE])
            found += [node.index for node in page if node is not None and self._is_as_before(node)]
        return found

    def _is_as_before(self, node: NodeState) -> bool:
        return not node.status and node.run == self._shapes[node.index].run

    def told_lost(self, lost: Sequence[int]) -> Finding:
        """In words."""
        which = ", ".join(
            f"{self._shapes[index].task} {self._shapes[index].job(self._record.id)}" for index in lost[:3]
        )
        many = len(lost) > 1
        text = f"{_jobs(len(lost))} may run, and the broker does not have {'them' if many else 'it'}: {which}"
        return Finding("lost", text + (" …" if len(lost) > 3 else ""), tuple(lost))

    def unpublished(self) -> Iterator[Finding]:
        """What stands behind open gates and was not handed on."""
        behind: dict[int, list[int]] = {}
        for shape in self._shapes.values():
            if shape.gate is not None and not shape.ended and self._is_open(shape.gate) and not self._is_passed(shape):
                behind.setdefault(shape.gate, []).append(shape.index)
        for gate, nodes in behind.items():
            where = "of its start" if gate == START else f"behind gate #{gate}"
            yield Finding("unpublished", f"{_jobs(len(nodes))} {where} were never handed to the broker", tuple(nodes))

    def undone(self) -> Iterator[Finding]:
        """Open nodes of which it is decided what becomes of them."""
        found = [
            shape.index
            for shape in self._shapes.values()
            if not shape.ended and (shape.index in self._decided or self._is_ready(shape))
        ]
        if found:
            which = ", ".join(f"#{index}" for index in found[:5]) + (" …" if len(found) > 5 else "")
            text = f"what the ends of others mean for {which} was not carried out: whoever was to do it has died"
            yield Finding("undone", text, tuple(found))

    def _is_open(self, gate: int) -> bool:
        return gate == START or (gate in self._shapes and self._shapes[gate].status == SUCCEEDED)

    def _is_passed(self, shape: Shape) -> bool:
        return shape.gate is not None and shape.index <= self._record.passed.get(shape.gate, -1)

    def _is_ready(self, shape: Shape) -> bool:
        """A join or a gate that waits for nothing should have ended."""
        return shape.kind is not Kind.JOB and not shape.waiting and (shape.gate is None or self._is_passed(shape))

    def _find_decided(self) -> Iterator[int]:
        """Nodes of which a source has come to something after which they do not run."""
        for shape in self._shapes.values():
            if not shape.ended:
                if shape.gate is not None and shape.gate in self._shapes:
                    gate = self._shapes[shape.gate]
                    if gate.ended and gate.status != SUCCEEDED:
                        yield shape.index
                continue
            told = shape.status if shape.status != SKIPPED else shape.cause
            for index in shape.feeds:
                target = self._shapes.get(index)
                if target is not None and not target.ended:
                    runs = told in FAILURES if target.handler else told == SUCCEEDED
                    if not runs:
                        yield index


def runs_once(host: Host, task: str) -> bool:
    """Whether jobs of this task are acknowledged before they run, and so must not be run again when they are lost."""
    known = host.task(task)
    return known is not None and known.config.ack == "before"


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"
