"""Messages in bytes: read by the client of the service, and the same as the client would have written them."""

from __future__ import annotations

import uuid
from typing import Any

from azure.servicebus import ServiceBusReceivedMessage
from camora_servicebus.messages import ADDED, COPY, Outgoing, body_of
from hypothesis import example, given
from hypothesis import strategies as st

TEXTS = st.text(max_size=300)
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: not name.startswith("camora"))
VALUES = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),  # the client refuses larger ones
    st.floats(allow_nan=False),
    st.uuids(),
)
MESSAGES = st.builds(
    Outgoing,
    entity=st.just("q"),
    job_id=st.text(min_size=1, max_size=400),
    task=TEXTS,
    body=st.binary(max_size=70_000),
    due=st.sampled_from([0, 1, 1_900_000_000_123]),
    copy=st.integers(0, 10**9),
    added=st.integers(-100, 10**6),
    session=st.none() | st.text(max_size=128),
    properties=st.dictionaries(NAMES, VALUES, max_size=5),
    more=st.fixed_dictionaries(
        {},
        optional={
            "content_type": st.text(st.characters(codec="ascii"), max_size=50),
            "to": TEXTS,
            "reply_to": TEXTS,
            "reply_to_session_id": TEXTS.map(lambda text: text[:128]),
            "partition_key": st.text(min_size=1, max_size=128),
        },
    ),
).filter(lambda made: not (made.session is not None and "partition_key" in made.more))


def seen(raw: bytes) -> dict[str, Any]:
    """What the service's client reads in it."""
    message = ServiceBusReceivedMessage.from_bytes(raw)
    names = (
        "message_id", "correlation_id", "subject", "session_id", "content_type", "to", "reply_to",
        "reply_to_session_id", "partition_key", "scheduled_enqueue_time_utc", "application_properties",
    )  # fmt: skip
    return {"body": body_of(message), **{name: getattr(message, name) for name in names}}


def by_the_client(made: Outgoing) -> bytes:
    from azure.servicebus._transport._pyamqp_transport import PyamqpTransport

    message = made.message()
    message._message = PyamqpTransport.to_outgoing_amqp_message(message.raw_amqp_message)
    return bytes(PyamqpTransport.encode_message(message))


@given(MESSAGES)
@example(Outgoing("q", "j" * 300, "t" * 300, b"", 1, 1, 1, "s", {"n" * 300: "v" * 300}, {"content_type": "c" * 300}))
def test_the_client_reads_what_it_would_have_written_itself(made: Outgoing) -> None:
    ours, theirs = seen(made.encoded()), seen(by_the_client(made))
    # What is empty the client leaves out, or writes as nothing.
    assert {name: value or None for name, value in ours.items()} == {
        name: value or None for name, value in theirs.items()
    }


def test_an_ordinary_message_byte_by_byte() -> None:
    made = Outgoing("q", "id", "t", b"{}")
    assert made.encoded() == (
        b"\x00Ss\xc0\x0f\x06\xa1\x02id@@\xa1\x01t@\xa1\x02id"  # the properties 0, 3 and 5
        b"\x00Su\xa0\x02{}"
    )


def test_all_that_there_is() -> None:
    token = uuid.uuid4()
    properties = {
        "text": "ü",
        "none": None,
        "yes": True,
        "no": False,
        "int": -1,
        "float": 0.5,
        "id": token,
        "raw": b"\xff",
        "long": 2**40,
    }
    made = Outgoing("q", "id", "t", b"\x00" * 300, 1000, 2, -1, "s", {**properties, "huge": 2**64}, {"to": "there"})
    found = seen(made.encoded())
    assert found["body"] == b"\x00" * 300
    assert (found["message_id"], found["correlation_id"], found["session_id"], found["to"]) == (
        "id:2",
        "id",
        "s",
        "there",
    )
    assert found["scheduled_enqueue_time_utc"].timestamp() == 1
    assert found["application_properties"] == {
        b"text": "ü".encode(), b"none": None, b"yes": True, b"no": False, b"int": -1, b"float": 0.5, b"id": token,
        b"raw": b"\xff", b"long": 2**40, b"huge": str(2**64).encode(), ADDED.encode(): -1, COPY.encode(): 2,
    }  # fmt: skip
