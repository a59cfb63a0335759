"""What `camora workflow show` and `list` print: a workflow as a tree that a person reads, and as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from camora.interfaces.workflows import WorkflowRecord
from camora.job import JobInfo
from camora.masking import masked

from camora_workflows.picture import Branch, state_of
from camora_workflows.plan import SKIPPED, Plan
from camora_workflows.shapes import Shape

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

__all__ = ["ago", "as_data", "as_tree", "heading", "listed", "span", "style_of"]

_SIGNS = {
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "expired": ("✗", "red"),
    "cancelled": ("⊘", "yellow"),
    "discarded": ("⊘", "yellow"),
    SKIPPED: ("∅", "dim"),
    "waits": ("·", "dim"),
    "begun": ("○", "cyan"),
    "queued": ("○", "cyan"),
    "scheduled": ("○", "cyan"),
    "retrying": ("↻", "yellow"),
    "running": ("▶", "cyan"),
    "lost": ("!", "red"),
}
_BAD = ("failed", "expired", "cancelled", "discarded")
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def span(seconds: float, *, units: int = 2) -> str:
    """A duration in its two (or so many) largest units: `3 min 20 s`."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    rest, parts = round(seconds), []
    for length, unit in (*_UNITS, (1, "s")):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:units])


def style_of(state: str) -> str:
    """How a state is coloured."""
    return _SIGNS.get(state, ("", ""))[1]


def ago(moment: int, now: int, *, units: int = 2) -> str:
    """A moment that has passed, seen from another one; both in milliseconds since the epoch."""
    return f"{span((now - moment) / 1000, units=units)} ago"


def _moment(stamp: int) -> str | None:
    return datetime.fromtimestamp(stamp / 1000, UTC).isoformat() if stamp else None


def _standing(record: WorkflowRecord, shapes: Mapping[int, Shape] | None = None, plan: Plan | None = None) -> str:
    """How the whole stands, in one word: what its result has come to, else its state."""
    if record.status:
        return record.status
    result = None if shapes is None or plan is None else shapes.get(plan.result)
    if result is not None and result.status:
        return result.status if result.status != SKIPPED else result.cause or SKIPPED
    return record.state


def heading(record: WorkflowRecord, plan: Plan, shapes: Mapping[int, Shape], now: int) -> Iterator[str]:
    """Lines above the tree."""
    whole = _standing(record, shapes, plan)
    ended = record.nodes - record.open
    yield f"{plan.kind} {record.id}: {whole}"
    if record.name:
        yield masked(record.name)
    told = [f"begun {ago(record.created, now)}"]
    if record.finished:
        told.append(f"took {span((record.finished - record.created) / 1000)}")
    else:
        told += [f"changed {ago(record.changed, now)}", f"{ended:,} of {record.nodes:,} nodes have ended"]
    if whole != record.state and record.state == "running" and whole in (*_BAD, "succeeded"):
        told.append("callbacks are not over")
    yield ", ".join(told)


def as_tree(
    label: str,
    more: Sequence[str],
    branches: Sequence[Branch],
    infos: Mapping[int, JobInfo],
    lost: Sequence[int],
    now: int,
) -> Tree:
    """The tree under its label and what more there is to say.

    `infos` says of begun jobs how far they are, `lost` which of them are nowhere.
    """
    from rich.text import Text
    from rich.tree import Tree

    head = Text(label, style="bold")
    for line in more:
        head.append(f"\n{line}", style="not bold dim")
    tree = Tree(head, guide_style="dim")
    drawing = _Drawing(infos, frozenset(lost), now)
    for branch in branches:
        drawing.add(tree, branch)
    return tree


class _Drawing:
    def __init__(self, infos: Mapping[int, JobInfo], lost: frozenset[int], now: int) -> None:
        self._infos = infos
        self._lost = lost
        self._now = now

    def add(self, tree: Tree, branch: Branch, prefix: str = "") -> None:
        node = tree.add(self._label(branch, prefix))
        if branch.what == "job" and branch.end.error and branch.end.status in _BAD:
            node.add(_text(branch.end.error, "red"))
        for step in branch.steps:
            self.add(node, step)
        rest = branch.size - len(branch.steps)
        if branch.what == "group" and rest > 0:
            node.add(
                _text(f"… {'and ' if branch.steps else ''}{rest:,} {'more' if branch.steps else 'jobs'} (--all)", "dim")
            )
        for callback in branch.callbacks:
            first = callback.steps[0].end if callback.what == "chain" and callback.steps else callback.end
            handler = first.handler or callback.end.handler
            self.add(node, callback, prefix="on failure: " if handler else "on success: ")

    def _label(self, branch: Branch, prefix: str) -> Text:
        from rich.text import Text

        label = Text()
        label.append(prefix, style="dim")
        if branch.what == "chain":
            return label.append("one after the other", style="dim")
        state = self._state(branch.end)
        sign, style = _SIGNS.get(state, ("?", ""))
        label.append(f"{sign} ", style=style)
        if branch.what == "job":
            return self._job(label, branch, state, style)
        name = f"{masked(branch.end.name)}: " if branch.end.name else ""
        label.append(f"{name}{branch.what} of {branch.size:,}", style="bold")
        if branch.what == "group" and branch.size:
            label.append("  " + ", ".join(_counted(branch.counts)))
        elif branch.end.status:
            label.append(f"  {_why(branch.end, state)}", style=style)
        return label

    def _job(self, label: Text, branch: Branch, state: str, style: str) -> Text:
        shape = branch.end
        label.append(f"{masked(shape.name)}: " if shape.name else "", style="bold")
        label.append(masked(shape.task) or shape.kind.value)
        label.append(f" #{shape.index}", style="dim")
        label.append(f"  {_why(shape, state)}", style=style)
        for part in self._times(shape, state):
            label.append(f", {masked(part)}")
        if branch.after:
            label.append(f"  after {masked(', '.join(branch.after))}", style="dim")
        return label

    def _state(self, shape: Shape) -> str:
        if shape.index in self._lost:
            return "lost"
        info = self._infos.get(shape.index)
        return state_of(shape) if info is None or shape.status else str(info.status)

    def _times(self, shape: Shape, state: str) -> Iterator[str]:
        info = self._infos.get(shape.index)
        if shape.status:
            if shape.started and shape.finished:
                yield f"in {span((shape.finished - shape.started) / 1000)}"
            if shape.attempts > 1:
                yield f"{shape.attempts} attempts"
        elif info is not None:
            yield from self._under_way(info, state)
        if shape.run:
            yield f"run {shape.run + 1}"

    def _under_way(self, info: JobInfo, state: str) -> Iterator[str]:
        if info.started is not None and state == "running":
            yield f"for {span(self._now / 1000 - info.started.timestamp())}"
        if info.due is not None and state in ("scheduled", "retrying"):
            left = info.due.timestamp() - self._now / 1000
            yield f"due in {span(left)}" if left > 0 else "due"
        if info.attempts > 1:
            yield f"attempt {info.attempts}" if state == "running" else f"{info.attempts} attempts"
        if info.worker:
            yield f"by {info.worker}"
        if info.error is not None:
            yield f"last error {info.error.line}"


def _why(shape: Shape, state: str) -> str:
    """The state, and where it comes from."""
    if state == SKIPPED:
        if not shape.cause:
            return "skipped: not needed"
        return f"skipped: #{shape.origin} {shape.cause}" if shape.origin >= 0 else f"skipped: {shape.cause}"
    if state == "waits":
        return f"waits for {shape.waiting}" if shape.waiting > 1 else "waits"
    if state == "lost":
        return "lost: it may run, and its job is nowhere (camora workflow recover)"
    return state


def _counted(counts: Mapping[str, int]) -> Iterator[str]:
    """How many members stand how, in the order in which people ask for it."""
    for state in (*_SIGNS, "?"):
        if counts.get(state):
            yield f"{counts[state]:,} {'under way' if state == 'begun' else 'waiting' if state == 'waits' else state}"


def _text(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(masked(text), style=style)


def as_data(
    record: WorkflowRecord, plan: Plan, shapes: Mapping[int, Shape], infos: Mapping[int, JobInfo], lost: Sequence[int]
) -> dict[str, Any]:
    """All of it, for `--json`."""
    return {
        **listed(record),
        "kind": plan.kind,
        "status": _standing(record, shapes, plan) if record.state != "recording" else "",
        "result": plan.result,
        "nodes": [_node(record.id, shape, infos.get(shape.index), shape.index in lost) for shape in shapes.values()],
    }


def _node(workflow: str, shape: Shape, info: JobInfo | None, lost: bool) -> dict[str, Any]:
    return {
        "index": shape.index,
        "kind": shape.kind.value,
        "job": shape.job(workflow) or None,
        "task": shape.task or None,
        "name": shape.name or None,
        "state": "lost" if lost else shape.status or (state_of(shape) if info is None else str(info.status)),
        "cause": shape.cause or None,
        "origin": shape.origin if shape.origin >= 0 else None,
        "error": shape.error or None,
        "attempts": shape.attempts or (info.attempts if info is not None else 0),
        "started": _moment(shape.started),
        "finished": _moment(shape.finished),
        "worker": shape.worker or (info.worker if info is not None else "") or None,
        "run": shape.run,
        "callback": shape.side or shape.handler,
        "gate": shape.gate,
        "feeds": list(shape.feeds),
    }


def listed(record: WorkflowRecord) -> dict[str, Any]:
    """One workflow in a list, for `--json`."""
    return {
        "id": record.id,
        "name": record.name,
        "state": record.state,
        "status": record.status or None,
        "created": _moment(record.created),
        "changed": _moment(record.changed),
        "finished": _moment(record.finished),
        "nodes": record.nodes,
        "open": record.open,
    }
