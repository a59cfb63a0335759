"""What the parts of this plugin tell each other: what is in a node, how it ended, where a job stands in its workflow.

All of it is opaque to stores and brokers, and travels as MessagePack. Unknown fields are ignored, so that what a newer
version has written can be read.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Callable
from typing import Any

import msgspec
from camora.outcome import ErrorInfo, Status

__all__ = [
    "CHUNK",
    "FAILURES",
    "GIVEN",
    "HEADER",
    "SKIPPED",
    "Carried",
    "CarriedNode",
    "Input",
    "Kind",
    "Outcome",
    "Place",
    "Plan",
    "Spec",
    "header_at",
    "header_of",
    "job_id",
    "outcome_from",
    "pack",
    "place_of",
    "unpack",
]

HEADER = "camora-workflow"
"""The header of messages that belong to a workflow: `place_of` reads it."""

CHUNK = "camora-workflow-chunk"
"""The header of a job of `task.chunks`: its one positional argument is a list, of which the function is called for one
item after the other; its result is the list of what they return. The header's text is the number of items."""

GIVEN = "camora-workflow-input"
"""The header of a job that looks into its workflow before it runs: the `Input` that it gets first, if any, and the
index of the node that this is of, -1 where that is to be looked up."""

SKIPPED = "skipped"
"""The status of a node that never ran, because of what came before it; those that ran have a `Status`."""

FAILURES = frozenset({Status.FAILED.value, Status.EXPIRED.value})
"""The ends after which what is to run `on_failure` does."""


class Kind(enum.StrEnum):
    """What a node is."""

    JOB = "job"
    JOIN = "join"
    """No job: it ends when all that feed it have, and its value is the list of theirs, in the order of indexes, or of
    `Spec.sources`. One that nothing feeds stands behind a gate, and is an empty group: it ends when that opens."""
    GATE = "gate"
    """No job: it ends when what feeds it has. Behind it stands any number of nodes; its value is its source's. It may
    be a handler: then what stands behind it gets the failure."""


class Input(enum.StrEnum):
    """What a job gets as its first argument."""

    NOTHING = ""
    RESULT = "result"
    """The value of its source, or of what its gate's source came to."""
    ALL = "all"
    """The values of all its sources, as a list in the order of `Spec.sources`."""
    FAILURE = "failure"
    """What failed: a `FailedStep`."""


class Spec(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One node. Times are milliseconds."""

    kind: Kind = Kind.JOB
    task: str = ""
    queue: str = ""
    message: bytes = b""
    """The message, encoded by the app's codec, as if it was to be sent when it was recorded."""
    delay: int = 0
    """How long after it may begin it is due."""
    expires: int | None = None
    """How long after it may begin it expires."""
    eta: bool = False
    """True where the message's own `due` is a moment that was asked for."""
    input: Input = Input.NOTHING
    sources: tuple[int, ...] = ()
    """The nodes that feed it, in the order in which their values are handed over. Always given where several feed a
    job; of a join where that is not the order of indexes."""
    handler: bool = False
    """It has one source, and runs if that came to one of `FAILURES`, and is skipped else."""
    side: bool = False
    """A callback: what becomes of it does not change what the workflow comes to."""
    name: str = ""
    """What people know it by, such as the name of a graph's node."""
    names: tuple[str, ...] = ()
    """Of a join whose value is a mapping: the name of each of its sources, in their order."""
    flat: bool = False
    """Of a join whose sources come to lists: its value is one list of all that is in them."""
    options: dict[str, Any] | None = None
    """The options of plugins for its publication: see `Envelope.options`."""


class Outcome(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """How a node ended. Moments are milliseconds since the epoch."""

    status: str
    """A final `Status`, or `SKIPPED`."""
    value: bytes | None = None
    """The encoded result of a job; joins and gates have none of their own."""
    error: ErrorInfo | None = None
    cause: str = ""
    """Of a node that was skipped, and of a join: the status of the job that is the reason; empty when nothing was
    wrong, as with a handler that is not needed."""
    origin: int = -1
    """The index of that job."""
    attempts: int = 0
    started: int = 0
    finished: int = 0
    worker: str = ""

    @property
    def told(self) -> str:
        """What those that wait for it go by: `succeeded`, or why not."""
        return self.status if self.status != SKIPPED else self.cause


class Plan(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """A workflow as a whole."""

    kind: str = "chain"
    """What was composed: `task`, `chain`, `group`, `chord`, `map` or `graph`."""
    result: int = 0
    """The index of the node whose end is that of the workflow."""
    names: dict[str, int] = msgspec.field(default_factory=dict)
    """Of a graph: the node of each name."""


class Place(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Where a job stands in a recorded workflow."""

    workflow: str
    index: int
    run: int = 0


class CarriedNode(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """A node that travels with the job before it."""

    index: int
    spec: Spec
    feeds: tuple[int, ...] = ()


class Carried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a job stands in a workflow that is recorded nowhere, and all that may follow: each node has one source."""

    workflow: str
    index: int
    feeds: tuple[int, ...] = ()
    result: int = 0
    nodes: tuple[CarriedNode, ...] = ()


def job_id(workflow: str, index: int, run: int = 0) -> str:
    """The id of a node's job: it follows from where the node stands, so that publishing it twice is known."""
    return f"{workflow}.{index}.{run}" if run else f"{workflow}.{index}"


pack: Callable[[msgspec.Struct], bytes] = msgspec.msgpack.Encoder().encode
"""As bytes."""


def unpack(kind: type[Any], data: bytes) -> Any:
    """From bytes. Raises `msgspec.DecodeError`."""
    return _decode[kind](data)


def header_of(place: Place | Carried) -> str:
    """The header's text."""
    if isinstance(place, Place):
        return header_at(place.workflow, place.index, place.run)
    return "+" + base64.b64encode(pack(place)).decode()


def header_at(workflow: str, index: int, run: int = 0) -> str:
    """The header's text of a job in a recorded workflow."""
    return f"{workflow} {index} {run}"


def place_of(text: str) -> Place | Carried | None:
    """What a header says; None for what no version of this plugin has written."""
    try:
        if text[:1] == "+":
            return _carried(base64.b64decode(text[1:], validate=True))
        workflow, index, run = text.split(" ")
        return Place(workflow=workflow, index=int(index), run=int(run))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        return None


_carried = msgspec.msgpack.Decoder(Carried).decode
outcome_from: Callable[[bytes], Outcome] = msgspec.msgpack.Decoder(Outcome).decode
"""As `unpack(Outcome, data)`."""
_decode = {kind: msgspec.msgpack.Decoder(kind).decode for kind in (Spec, Outcome, Plan)}
