"""The entities of the private Service Bus: each rule, a model of all together, and what a killed server finds again."""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.servers.servicebus.entities import (
    AlreadyExists,
    CorrelationFilter,
    Disabled,
    Entity,
    FalseFilter,
    Incoming,
    InvalidArgument,
    LockLost,
    MessageNotFound,
    Namespace,
    NotAllowed,
    NotFound,
    QueueOptions,
    QuotaExceeded,
    Rule,
    SessionCannotBeLocked,
    SessionLockLost,
    SqlFilter,
    Stored,
    SubscriptionOptions,
    Target,
    TooLarge,
    TopicOptions,
)
from tests.servers.servicebus.entities.browse import Shelf
from tests.servers.servicebus.entities.deadlines import Deadlines

ME, OTHER = "me", "other"


class World:
    """A namespace whose clock stands still until it is moved, and which can be killed."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.now = 1_000_000.0
        self.events: list[dict[str, Any]] = []
        self.folder = folder
        self.options = options
        self.namespace = self._new()

    def _new(self) -> Namespace:
        journal = self.folder / "journal"
        return Namespace(clock=lambda: self.now, journal=journal, tell=self.events.append, **self.options)

    def kill(self) -> None:
        """Start again from what the kernel has, and once more from what that start has made of it."""
        for _ in range(2):
            assert not self.namespace.ground.journal._waiting, "something is not written after a call"
            self.namespace.close()
            self.namespace = self._new()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.namespace.tick()

    def queue(self, name: str = "q", **options: Any) -> Entity:
        self.namespace.create_queue(name, QueueOptions(**options))
        return self.namespace.entity(name)

    def entity(self, path: str = "q") -> Entity:
        return self.namespace.entity(path)

    def dead(self, path: str = "q") -> Entity:
        return self.namespace.entity(f"{path}/$DeadLetterQueue")

    def target(self, name: str = "q") -> Target:
        return self.namespace.target(name)

    def send(self, *bodies: str, to: str = "q", **fields: Any) -> list[int]:
        return self.target(to).send([Incoming(body.encode(), **fields) for body in bodies])

    def seen(self, path: str = "q") -> list[str]:
        return [stored.incoming.encoded.decode() for stored in self.entity(path).peek(0, 1000)]

    def told(self, event: str) -> list[int]:
        return [each["sequence"] for each in self.events if each["event"] == event]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def bodies(given: Any) -> list[str]:
    return [each.incoming.encoded.decode() for each in given]


# Peek-lock


def test_messages_are_given_in_order_and_once(world: World) -> None:
    queue = world.queue()
    assert world.send("a", "b", "c") == [1, 2, 3]
    first = queue.lock(2, ME)
    assert bodies(first) == ["a", "b"]
    assert [each.delivery_count for each in first] == [0, 0]
    assert [each.locked_until for each in first] == [world.now + 60] * 2
    assert bodies(queue.lock(5, OTHER)) == ["c"]
    assert queue.lock(5, OTHER) == []
    assert not queue.ready()


def test_what_is_completed_is_gone(world: World) -> None:
    queue = world.queue()
    world.send("a")
    [locked] = queue.lock(1, ME)
    queue.complete(locked.token)
    world.sleep(3600)
    assert queue.counts().active == 0
    with pytest.raises(LockLost):
        queue.complete(locked.token)


def test_abandoned_and_lapsed_deliveries_count_and_released_ones_do_not(world: World) -> None:
    queue = world.queue(max_delivery_count=10)
    world.send("a")
    [locked] = queue.lock(1, ME)
    queue.abandon(locked.token)
    [locked] = queue.lock(1, ME)
    assert locked.delivery_count == 1
    queue.release(locked.token)
    [locked] = queue.lock(1, ME)
    assert locked.delivery_count == 1
    world.sleep(60)
    with pytest.raises(LockLost):
        queue.complete(locked.token)
    [locked] = queue.lock(1, ME)
    assert locked.delivery_count == 2


def test_a_lock_lapses_by_the_clock_even_before_a_tick(world: World) -> None:
    queue = world.queue(lock_duration=30)
    world.send("a")
    [locked] = queue.lock(1, ME)
    world.now += 30
    with pytest.raises(LockLost):
        queue.renew(locked.token)
    assert bodies(queue.lock(1, OTHER)) == ["a"]


def test_what_comes_back_takes_its_old_place(world: World) -> None:
    queue = world.queue()
    world.send("a", "b", "c")
    first, second = queue.lock(2, ME)
    queue.abandon(second.token)
    queue.abandon(first.token)
    assert bodies(queue.lock(3, ME)) == ["a", "b", "c"]


def test_a_renewed_lock_begins_anew(world: World) -> None:
    queue = world.queue(lock_duration=30)
    world.send("a")
    [locked] = queue.lock(1, ME)
    world.sleep(20)
    assert queue.renew(locked.token) == world.now + 30
    world.sleep(29)
    queue.complete(locked.token)


def test_a_lock_of_its_own_time(world: World) -> None:
    queue = world.queue()
    world.send("a", "b")
    [short] = queue.lock(1, ME, seconds=5)
    [long] = queue.lock(1, ME)
    assert world.namespace.next_due() == short.locked_until
    world.sleep(5)
    with pytest.raises(LockLost):
        queue.complete(short.token)
    queue.complete(long.token)


def test_receive_and_delete_keeps_nothing(world: World) -> None:
    queue = world.queue()
    world.send("a", "b", "c")
    assert bodies(queue.take(2)) == ["a", "b"]
    world.sleep(3600)
    assert world.seen() == ["c"]


def test_changed_properties_are_over_those_that_were_sent(world: World) -> None:
    queue = world.queue()
    world.send("a", application_properties={"x": 1, "y": 2})
    [locked] = queue.lock(1, ME)
    queue.abandon(locked.token, {"y": 3})
    [locked] = queue.lock(1, ME)
    assert locked.application_properties == {"x": 1, "y": 3}
    world.kill()
    assert world.entity().peek(0, 1)[0].application_properties == {"x": 1, "y": 3}


# Dead letters


def test_over_its_maximum_it_is_dead_lettered(world: World) -> None:
    queue = world.queue(max_delivery_count=3)
    world.send("a")
    counts = []
    for _ in range(3):
        [locked] = queue.lock(1, ME)
        counts.append(locked.delivery_count)
        queue.abandon(locked.token)
    assert counts == [0, 1, 2]
    assert queue.lock(1, ME) == []
    [dead] = world.dead().lock(1, ME)
    assert (dead.sequence_number, dead.dead_letter_reason, dead.dead_letter_source) == (
        1,
        "MaxDeliveryCountExceeded",
        "q",
    )
    assert dead.application_properties["DeadLetterReason"] == "MaxDeliveryCountExceeded"
    assert queue.counts().dead == 1


def test_dead_lettered_by_hand(world: World) -> None:
    queue = world.queue()
    world.send("a", "b")
    one, two = queue.lock(2, ME)
    queue.dead_letter(two.token, "Broken", "cannot be read", {"by": "me"})
    queue.dead_letter(one.token)
    assert bodies(world.dead().peek(0, 5)) == ["a", "b"]  # by their numbers
    found = world.dead().peek(2, 1)[0]
    assert (found.dead_letter_reason, found.dead_letter_description) == ("Broken", "cannot be read")
    assert found.properties["by"] == "me"
    assert found.enqueued == 1_000_000.0
    [locked] = world.dead().lock(1, ME)
    with pytest.raises(NotAllowed):
        world.dead().dead_letter(locked.token)


def test_in_the_dead_letter_queue_nothing_expires_and_nothing_counts(world: World) -> None:
    queue = world.queue(max_delivery_count=1)
    world.send("a", time_to_live=100)
    [locked] = queue.lock(1, ME)
    queue.dead_letter(locked.token)
    for _ in range(5):
        [locked] = world.dead().lock(1, ME)
        assert locked.delivery_count == 0
        world.dead().abandon(locked.token)
    world.sleep(1000)
    assert world.seen("q/$DeadLetterQueue") == ["a"]


def test_dead_letters_can_be_forwarded(world: World) -> None:
    world.queue("graves")
    queue = world.queue(forward_dead_lettered_to="graves")
    world.send("a")
    [locked] = queue.lock(1, ME)
    queue.dead_letter(locked.token, "Broken")
    assert queue.counts().dead == 0
    [found] = world.entity("graves").peek(0, 5)
    assert (found.dead_letter_reason, found.dead_letter_source) == ("Broken", "q")


# Time to live


def test_what_expires_is_dropped_or_dead_lettered(world: World) -> None:
    world.queue(dead_lettering_on_message_expiration=True)
    world.queue("drops")
    for name in ("q", "drops"):
        world.send("short", to=name, time_to_live=10)
        world.send("long", to=name, time_to_live=20)
    assert world.namespace.next_due() == world.now + 10
    world.sleep(10)
    assert world.seen() == ["long"]
    assert world.dead().peek(0, 1)[0].dead_letter_reason == "TTLExpiredException"
    assert world.seen("drops") == ["long"]
    assert world.seen("drops/$DeadLetterQueue") == []
    assert world.told("expired") == [1]


def test_the_entitys_time_to_live_is_the_longest(world: World) -> None:
    world.queue(default_time_to_live=10)
    world.send("a", time_to_live=100)
    world.send("b")
    world.send("c", time_to_live=5)
    assert [stored.expires - world.now for stored in world.entity().peek(0, 5)] == [10, 10, 5]


def test_what_is_locked_expires_when_its_lock_ends(world: World) -> None:
    queue = world.queue(dead_lettering_on_message_expiration=True)
    world.send("done", "back", time_to_live=10)
    done, back = queue.lock(2, ME)
    world.sleep(30)
    queue.complete(done.token)
    queue.abandon(back.token)
    assert queue.lock(1, ME) == []
    assert world.seen("q/$DeadLetterQueue") == ["back"]


# Scheduled messages


def test_a_scheduled_message_gets_a_new_number_when_it_is_due(world: World) -> None:
    queue = world.queue()
    [number] = world.target().schedule([Incoming(b"later", scheduled=world.now + 100)])
    assert world.send("now") == [2]
    assert [stored.state for stored in queue.peek(0, 5)] == ["scheduled", "active"]
    assert bodies(queue.take(5)) == ["now"]
    assert queue.counts().scheduled == 1
    world.sleep(100)
    [locked] = queue.lock(5, ME)
    assert (locked.sequence_number, locked.enqueued) == (3, world.now)
    with pytest.raises(MessageNotFound):
        world.target().cancel([number])


def test_a_scheduled_message_is_cancelled_once(world: World) -> None:
    queue = world.queue()
    one, two = world.target().schedule([Incoming(b"x", scheduled=world.now + 100)] * 2)
    world.target().cancel([one])
    with pytest.raises(MessageNotFound):
        world.target().cancel([two, one])
    world.sleep(100)
    assert len(queue.lock(5, ME)) == 1


def test_what_was_scheduled_for_the_past_is_there_at_once(world: World) -> None:
    queue = world.queue()
    world.send("a", scheduled=world.now - 1)
    assert bodies(queue.lock(1, ME)) == ["a"]


def test_time_to_live_begins_when_a_scheduled_message_is_due(world: World) -> None:
    world.queue()
    world.send("a", scheduled=world.now + 100, time_to_live=10)
    world.sleep(100)
    world.sleep(9)
    assert world.seen() == ["a"]
    world.sleep(1)
    assert world.seen() == []


# Deferral


def test_deferred_messages_come_by_number_only(world: World) -> None:
    queue = world.queue()
    world.send("a", "b")
    [locked] = queue.lock(1, ME)
    queue.defer(locked.token, {"why": "early"})
    assert bodies(queue.lock(5, ME)) == ["b"]
    assert queue.counts().deferred == 1
    with pytest.raises(MessageNotFound):
        queue.by_sequence([1, 2], ME)
    [again] = queue.by_sequence([1], ME)
    assert again.application_properties == {"why": "early"}
    with pytest.raises(MessageNotFound):
        queue.by_sequence([1], OTHER)
    queue.abandon(again.token)
    assert queue.lock(5, ME) == []  # it is still deferred
    [again] = queue.by_sequence([1], ME)
    assert again.delivery_count == 2
    queue.complete(again.token)
    assert queue.counts().deferred == 0


def test_deferring_counts_a_delivery(world: World) -> None:
    queue = world.queue(max_delivery_count=2)
    world.send("a")
    [locked] = queue.lock(1, ME)
    queue.defer(locked.token)
    [locked] = queue.by_sequence([1], ME)
    assert locked.delivery_count == 1
    queue.defer(locked.token)
    with pytest.raises(MessageNotFound):
        queue.by_sequence([1], ME)
    assert world.dead().peek(0, 1)[0].dead_letter_reason == "MaxDeliveryCountExceeded"


@pytest.mark.parametrize("buried", [False, True])
def test_deferred_messages_expire_when_somebody_wants_them(world: World, buried: bool) -> None:
    queue = world.queue(dead_lettering_on_message_expiration=buried)
    world.send("a", "b", time_to_live=100)
    for locked in queue.lock(2, ME):
        queue.defer(locked.token)
    world.sleep(99)
    assert bodies(queue.take_by_sequence([2])) == ["b"]
    world.sleep(1000)
    assert world.seen() == ["a"]
    with pytest.raises(MessageNotFound, match="expired"):
        queue.by_sequence([1], ME)
    assert world.seen() == []
    assert world.seen("q/$DeadLetterQueue") == ["a"] * buried


# Duplicate detection


def test_a_duplicate_is_silently_not_stored(world: World) -> None:
    queue = world.queue(requires_duplicate_detection=True, duplicate_detection_window=20)
    assert world.send("a", message_id="1") == [1]
    assert world.send("b", message_id="1") == [0]
    assert world.send("c", message_id="2") == [2]
    assert world.send("d", "e") == [3, 4]  # without an id they are no duplicates
    for locked in queue.lock(9, ME):
        queue.complete(locked.token)
    world.sleep(19)
    world.kill()
    assert world.send("f", message_id="1") == [0]
    world.sleep(1)
    assert world.send("g", message_id="1") == [5]
    assert [each["message_id"] for each in world.events if each["event"] == "duplicate"] == ["1", "1"]


def test_scheduled_messages_count_for_duplicates(world: World) -> None:
    world.queue(requires_duplicate_detection=True)
    world.send("later", message_id="1", scheduled=world.now + 10)
    world.send("now", message_id="1")
    world.sleep(10)
    assert world.seen() == ["later"]


def test_in_a_partitioned_queue_the_partition_key_counts_too(world: World) -> None:
    world.queue(requires_duplicate_detection=True, enable_partitioning=True)
    world.send("a", message_id="1", partition_key="x")
    world.send("b", message_id="1", partition_key="y")
    world.send("c", message_id="1", partition_key="x")
    assert world.seen() == ["a", "b"]


# Sessions


def test_one_holder_of_a_session_gets_its_messages_in_order(world: World) -> None:
    queue = world.queue(requires_session=True)
    world.send("a1", session_id="a")
    world.send("b1", session_id="b")
    world.send("a2", session_id="a")
    session = queue.accept_session(None, ME)
    assert session is not None
    assert session.session_id == "a"
    with pytest.raises(SessionCannotBeLocked):
        queue.accept_session("a", OTHER)
    assert bodies(queue.lock(5, ME, session="a")) == ["a1", "a2"]
    with pytest.raises(SessionLockLost):
        queue.lock(5, OTHER, session="a")
    with pytest.raises(NotAllowed):
        queue.lock(5, OTHER)
    other = queue.accept_session(None, OTHER)
    assert other is not None
    assert other.session_id == "b"
    assert queue.accept_session(None, "third") is None
    assert sorted(queue.sessions()) == ["a", "b"]


def test_messages_of_a_held_session_go_to_its_holder(world: World) -> None:
    queue = world.queue(requires_session=True)
    queue.accept_session("a", ME)
    assert not queue.ready("a")
    world.send("a1", session_id="a")
    assert queue.ready("a")
    assert not queue.ready()
    [locked] = queue.lock(5, ME, session="a")
    queue.complete(locked.token)
    assert queue.sessions() == []


def test_what_comes_back_to_a_session_takes_its_old_place(world: World) -> None:
    queue = world.queue(requires_session=True)
    world.send("a1", "a2", "a3", session_id="a")
    queue.accept_session("a", ME)
    for locked in reversed(queue.lock(2, ME, session="a")):
        queue.abandon(locked.token)
    assert bodies(queue.lock(3, ME, session="a")) == ["a1", "a2", "a3"]


def test_closing_a_session_counts_no_delivery_and_its_lapse_counts_one(world: World) -> None:
    queue = world.queue(requires_session=True)
    world.send("a1", session_id="a")
    queue.accept_session("a", ME)
    [locked] = queue.lock(1, ME, session="a")
    queue.close_session("a", ME)
    with pytest.raises(SessionLockLost):
        queue.complete(locked.token)
    queue.accept_session(None, ME)
    [locked] = queue.lock(1, ME, session="a")
    assert locked.delivery_count == 0
    world.sleep(40)
    assert queue.renew_session("a", ME) == world.now + 60
    world.sleep(59)
    assert queue.ready("a") is False
    world.sleep(1)
    with pytest.raises(SessionLockLost):
        queue.complete(locked.token)
    with pytest.raises(SessionLockLost):
        queue.renew_session("a", ME)
    queue.accept_session(None, OTHER)
    [locked] = queue.lock(1, OTHER, session="a")
    assert locked.delivery_count == 1


def test_the_state_of_a_session_outlives_its_holder_and_the_server(world: World) -> None:
    queue = world.queue(requires_session=True)
    queue.accept_session("a", ME)
    queue.set_state("a", b"half done", ME)
    with pytest.raises(SessionLockLost):
        queue.set_state("a", b"other", OTHER)
    queue.close_session("a", ME)
    with pytest.raises(SessionLockLost):
        queue.get_state("a", ME)
    world.kill()
    queue = world.entity()
    assert queue.sessions() == ["a"]
    queue.accept_session("a", OTHER)
    assert queue.get_state("a", OTHER) == b"half done"
    queue.set_state("a", None, OTHER)
    assert queue.sessions() == []


def test_a_session_is_locked_over_a_kill_until_it_lapses(world: World) -> None:
    queue = world.queue(requires_session=True)
    world.send("a1", session_id="a")
    queue.accept_session("a", ME)
    [locked] = queue.lock(1, ME, session="a")
    world.kill()
    queue = world.entity()
    with pytest.raises(SessionCannotBeLocked):
        queue.accept_session("a", OTHER)
    assert queue.accept_session(None, OTHER) is None
    world.sleep(60)
    assert queue.accept_session(None, OTHER) is not None
    [again] = queue.lock(1, OTHER, session="a")
    assert (again.delivery_count, again.token != locked.token) == (1, True)


def test_deferred_messages_of_a_session_come_to_its_holder_only(world: World) -> None:
    queue = world.queue(requires_session=True)
    world.send("a1", session_id="a")
    world.send("b1", session_id="b")
    for name in ("a", "b"):
        queue.accept_session(name, ME)
        [locked] = queue.lock(1, ME, session=name)
        queue.defer(locked.token)
    with pytest.raises(MessageNotFound):
        queue.by_sequence([1, 2], ME, session="a")
    with pytest.raises(SessionLockLost):
        queue.by_sequence([1], OTHER, session="a")
    [locked] = queue.by_sequence([1], ME, session="a")
    queue.complete(locked.token)


def test_sessions_are_required_where_they_are_and_refused_where_not(world: World) -> None:
    world.queue(requires_session=True)
    with pytest.raises(NotAllowed, match="session id"):
        world.send("a")
    queue = world.queue("plain")
    world.send("a", to="plain", session_id="a")  # it is a property like any other there
    assert bodies(queue.lock(1, ME)) == ["a"]
    with pytest.raises(NotAllowed):
        queue.accept_session("a", ME)


def test_dead_letters_of_sessions_are_received_without(world: World) -> None:
    queue = world.queue(requires_session=True)
    world.send("a1", session_id="a")
    queue.accept_session("a", ME)
    [locked] = queue.lock(1, ME, session="a")
    queue.dead_letter(locked.token)
    [dead] = world.dead().lock(1, ME)
    world.dead().complete(dead.token)
    assert world.seen("q/$DeadLetterQueue") == []


# Holders


def test_locks_outlive_their_holder_unless_they_die_with_it(world: World) -> None:
    queue = world.queue()
    world.send("a", "b")
    [kept] = queue.lock(1, ME)
    queue.holder_gone(ME, locks_too=False)
    queue.complete(kept.token)
    [lost] = queue.lock(1, OTHER)
    queue.holder_gone(OTHER, locks_too=True)
    with pytest.raises(LockLost):
        queue.complete(lost.token)
    [again] = queue.lock(1, ME)
    assert again.delivery_count == 0


def test_a_session_ends_with_its_holder(world: World) -> None:
    queue = world.queue(requires_session=True)
    world.send("a1", session_id="a")
    queue.accept_session("a", ME)
    queue.lock(1, ME, session="a")
    queue.holder_gone(ME, locks_too=False)
    session = queue.accept_session(None, OTHER)
    assert session is not None
    assert [each.delivery_count for each in queue.lock(1, OTHER, session="a")] == [0]


def test_all_locks_can_be_made_to_lapse(world: World) -> None:
    queue = world.queue()
    world.send("a", "b", "c")
    locked = queue.lock(2, ME)
    assert queue.expire_locks() == 2
    for each in locked:
        with pytest.raises(LockLost):
            queue.complete(each.token)
    assert [each.delivery_count for each in queue.lock(5, ME)] == [1, 1, 0]


# Topics


def test_every_subscription_gets_what_its_rules_take(world: World) -> None:
    space = world.namespace
    space.create_topic("t")
    space.create_subscription("t", "all")
    space.create_subscription("t", "none", SubscriptionOptions(default_rule=Rule("$Default", FalseFilter())))
    red = Rule("red", SqlFilter("color = 'red'"))
    space.create_subscription("t", "red", SubscriptionOptions(default_rule=red))
    space.add_rule("t", "red", Rule("label", CorrelationFilter(label="red")))
    world.send("a", to="t", application_properties={"color": "red"}, subject="red")
    world.send("b", to="t", application_properties={"color": "blue"})
    assert world.seen("t/Subscriptions/all") == ["a", "b"]
    assert world.seen("t/subscriptions/RED") == ["a"]
    assert world.seen("t/Subscriptions/none") == []
    [stored] = world.entity("t/Subscriptions/red").peek(0, 1)
    assert (stored.sequence_number, stored.enqueued_sequence) == (1, 1)
    world.kill()
    world.send("c", to="t", application_properties={"color": "red"})
    assert world.seen("t/Subscriptions/red") == ["a", "c"]
    world.namespace.remove_rule("t", "red", "Red")
    world.kill()
    world.send("d", to="t", application_properties={"color": "red"})
    world.send("e", to="t", subject="red")
    assert world.seen("t/Subscriptions/red") == ["a", "c", "e"]


def test_subscriptions_are_settled_each_for_itself(world: World) -> None:
    space = world.namespace
    space.create_topic("t")
    for name in ("one", "two"):
        space.create_subscription("t", name)
    world.send("a", to="t", application_properties={"x": 1})
    one, two = (space.entity(f"t/Subscriptions/{name}") for name in ("one", "two"))
    [locked] = one.lock(1, ME)
    one.abandon(locked.token, {"x": 2})
    [locked] = two.lock(1, ME)
    two.dead_letter(locked.token, "Broken")
    assert one.peek(0, 1)[0].application_properties == {"x": 2}
    assert two.counts().dead == 1
    assert one.counts().dead == 0
    [dead] = space.entity("t/Subscriptions/two/$DeadLetterQueue").peek(0, 1)
    assert dead.dead_letter_source == "t/Subscriptions/two"
    assert dead.application_properties["x"] == 1


def test_a_topic_schedules_and_detects_duplicates(world: World) -> None:
    space = world.namespace
    space.create_topic("t", TopicOptions(requires_duplicate_detection=True, default_time_to_live=50))
    space.create_subscription("t", "all")
    [number] = world.target("t").schedule([Incoming(b"gone", scheduled=world.now + 10)])
    world.target("t").cancel([number])
    world.send("later", to="t", message_id="1", scheduled=world.now + 10)
    world.kill()
    assert world.send("again", to="t", message_id="1") == [0]
    world.sleep(10)
    assert world.seen("t/Subscriptions/all") == ["later"]
    world.sleep(50)
    assert world.seen("t/Subscriptions/all") == []


def test_a_subscription_with_sessions_buries_what_has_none(world: World) -> None:
    world.namespace.create_topic("t")
    world.namespace.create_subscription("t", "s", SubscriptionOptions(requires_session=True))
    world.send("a", to="t", session_id="1")
    world.send("b", to="t")
    assert world.seen("t/Subscriptions/s") == ["a"]
    [dead] = world.entity("t/Subscriptions/s/$DeadLetterQueue").peek(0, 5)
    assert (dead.dead_letter_reason, dead.sequence_number) == ("Session ID is null", 2)


def test_a_rule_that_cannot_be_decided_buries_the_message(world: World) -> None:
    world.namespace.create_topic("t")
    broken = Rule("r", SqlFilter("x / 0 = 1"))
    world.namespace.create_subscription("t", "s", SubscriptionOptions(default_rule=broken))
    forgiving = SubscriptionOptions(default_rule=broken, dead_lettering_on_filter_errors=False)
    world.namespace.create_subscription("t", "f", forgiving)
    world.send("a", to="t", application_properties={"x": 1})
    assert world.seen("t/Subscriptions/s/$DeadLetterQueue") == ["a"]
    assert world.seen("t/Subscriptions/f/$DeadLetterQueue") == []


@pytest.mark.parametrize(
    ("expression", "taken"),
    [
        ("1 = 1", True),
        ("color = 'red'", True),
        ("COLOR = 'red'", True),
        ("color = 'Red'", False),
        ("user.color = 'red' AND sys.Label = 'it''s'", True),
        ("[color] = 'red' and \"color\" <> 'blue'", True),
        ("color = 'blue' OR count > 2", True),
        ("NOT color = 'red'", False),
        ("missing = 'x'", False),
        ("NOT missing = 'x'", False),  # unknown is not true either way
        ("missing IS NULL", True),
        ("color IS NOT NULL AND missing IS NULL", True),
        ("missing = 'x' OR color = 'red'", True),
        ("color IN ('blue', 'red')", True),
        ("color NOT IN ('blue', 'green')", True),
        ("color LIKE 'r%'", True),
        ("color LIKE 'r_d'", True),
        ("color LIKE 'R%'", False),
        ("color NOT LIKE '%x%'", True),
        ("percent LIKE '100!%' ESCAPE '!'", True),
        ("percent LIKE '1!%' ESCAPE '!'", False),
        ("EXISTS(color) AND NOT EXISTS(missing)", True),
        ("count + 1 = 4 AND count * 2 - 1 = 5 AND count % 2 = 1", True),
        ("-count < 0", True),
        ("count >= 3.0 AND count <= 3", True),
        ("count = '3'", False),  # of another type
        ("flag = TRUE", True),
        ("flag", True),
        ("sys.MessageId = 'm' AND sys.CorrelationId IS NULL", True),
        ("(color = 'blue' OR count = 3) AND (flag = false OR color = 'red')", True),
        ("color = @wanted", True),
        ("'a' = 'a' AND color != 'x'", True),
    ],
)
def test_sql_filters(expression: str, taken: bool) -> None:
    properties = {"color": "red", "count": 3, "flag": True, "percent": "100%"}
    message = Incoming(b"", message_id="m", subject="it's", application_properties=properties)
    assert SqlFilter(expression, {"@wanted": "red"}).matches(message) is taken


@pytest.mark.parametrize(
    "expression",
    ["", "color =", "= 'red'", "color = 'red", "(1 = 1", "1 = 1)", "sys.Nothing = 1", "color = @missing", "a IN ()",
     "a b", "a IS 1", "1 = 1 AND", "color LIKE", "$ = 1", "x" * 1025],
)  # fmt: skip
def test_sql_that_cannot_be_read(expression: str) -> None:
    with pytest.raises(InvalidArgument, match="SqlExpression"):
        SqlFilter(expression)


# Forwarding


def test_forwarding_goes_on_to_the_end(world: World) -> None:
    world.namespace.create_topic("t")
    world.namespace.create_subscription("t", "s", SubscriptionOptions(forward_to="b"))
    last = world.queue("b")
    world.queue("a", forward_to="t")
    world.send("first", to="b")
    world.send("x", to="a")
    assert world.seen("b") == ["first", "x"]
    assert world.seen("a") == []
    stored = last.peek(2, 1)[0]
    assert (stored.sequence_number, stored.enqueued_sequence) == (2, 1)
    with pytest.raises(NotAllowed, match="forwards"):
        world.entity("a").lock(1, ME)


def test_after_four_hops_a_message_is_dead_lettered(world: World) -> None:
    for number in range(7):
        world.queue(f"q{number}", forward_to=f"q{number + 1}" if number < 6 else "")
    world.send("far", to="q0")
    world.send("near", to="q2")
    assert world.seen("q6") == ["near"]
    [dead] = world.entity("q4/$Transfer/$DeadLetterQueue").peek(0, 5)
    assert (bodies([dead]), dead.dead_letter_reason) == (["far"], "MaxTransferHopCountExceeded")
    assert world.entity("q4").counts().transfer_dead == 1


def test_what_cannot_be_forwarded_is_dead_lettered(world: World) -> None:
    world.queue("a", forward_to="b")
    world.send("no such queue", to="a")
    world.queue("b", status="SendDisabled")
    world.send("disabled", to="a")
    assert world.seen("a/$Transfer/$DeadLetterQueue") == ["no such queue", "disabled"]
    world.kill()
    assert world.seen("a/$Transfer/$DeadLetterQueue") == ["no such queue", "disabled"]


def test_what_waits_goes_on_when_forwarding_is_set(world: World) -> None:
    queue = world.queue("a")
    world.queue("b")
    world.send("1", "2", "3", to="a")
    [locked] = queue.lock(1, ME)
    world.namespace.update_queue("a", QueueOptions(forward_to="b"))
    assert world.seen("b") == ["2", "3"]
    queue.abandon(locked.token)
    assert world.seen("b") == ["2", "3", "1"]
    world.kill()
    assert (world.seen("a"), world.seen("b")) == ([], ["2", "3", "1"])


# Limits


@pytest.mark.parametrize(
    ("tier", "options", "limit"),
    [
        ("standard", {}, 256 * 1024),
        ("premium", {}, 1024 * 1024),
        ("premium", {"max_message_size": 100 * 1024 * 1024}, 100 * 1024 * 1024),
    ],
)
def test_messages_are_as_large_as_tier_and_queue_allow(
    tmp_path: Path, tier: str, options: dict[str, Any], limit: int
) -> None:
    world = World(tmp_path, tier=tier)
    world.queue(**options)
    assert world.target().max_message_size == limit
    world.target().send([Incoming(b"x", size=limit)])
    with pytest.raises(TooLarge, match=f"{limit + 1} bytes"):
        world.target().send([Incoming(b"x", size=limit + 1)])
    assert world.entity().counts().active == 1


def test_a_batch_is_stored_whole_or_not(world: World) -> None:
    queue = world.queue()
    with pytest.raises(TooLarge, match="batch"):
        world.target().send([Incoming(b"x", size=100 * 1024)] * 3)
    with pytest.raises(InvalidArgument, match="MessageId"):
        world.target().send([Incoming(b"x"), Incoming(b"x", message_id="x" * 129)])
    assert queue.counts().active == 0


def test_ids_and_properties_have_limits(world: World) -> None:
    world.queue()
    world.send("a", message_id="x" * 128, session_id="s" * 128)
    with pytest.raises(InvalidArgument, match="SessionId has 129"):
        world.send("a", session_id="s" * 129)
    with pytest.raises(InvalidArgument, match="differ"):
        world.send("a", session_id="s", partition_key="p")
    with pytest.raises(TooLarge, match="'big'"):
        world.send("a" * 40_000, application_properties={"big": "x" * 33_000})
    with pytest.raises(TooLarge, match="together"):
        world.send("a" * 90_000, application_properties={str(number): "x" * 30_000 for number in range(3)})
    assert world.seen() == ["a"]


def test_a_full_queue_takes_no_more_until_something_is_gone(world: World) -> None:
    queue = world.queue(max_size=10)
    world.send("12345")
    world.send("1234")
    with pytest.raises(QuotaExceeded):
        world.send("12")
    [locked] = queue.lock(1, ME)
    with pytest.raises(QuotaExceeded):
        world.send("12")
    queue.dead_letter(locked.token)
    with pytest.raises(QuotaExceeded):  # dead letters fill it too
        world.send("12")
    world.dead().take(1)
    world.send("12")
    assert queue.counts().size == 6


def test_a_status_closes_one_side_or_both(world: World) -> None:
    queue = world.queue()
    world.send("a")

    def status(value: str) -> None:
        world.namespace.update_queue("q", attrs.evolve(queue.options, status=value))

    status("SendDisabled")
    with pytest.raises(Disabled):
        world.send("b")
    [locked] = queue.lock(1, ME)
    status("ReceiveDisabled")
    queue.abandon(locked.token)
    world.send("b")
    with pytest.raises(Disabled):
        queue.lock(1, ME)
    with pytest.raises(Disabled):
        queue.take(1)
    status("Disabled")
    with pytest.raises(Disabled):
        queue.lock(1, ME)
    with pytest.raises(Disabled):
        world.send("c")
    status("Active")
    assert len(queue.lock(5, ME)) == 2


# Names


def test_names(world: World) -> None:
    space = world.namespace
    world.queue("Some/Queue")
    assert space.entity("some/queue").path == "Some/Queue"
    with pytest.raises(AlreadyExists):
        space.create_queue("SOME/queue")
    with pytest.raises(AlreadyExists):
        space.create_topic("some/queue")
    for wrong in ("", "x" * 261, "a$b", "/a", "a/"):
        with pytest.raises(InvalidArgument):
            space.create_queue(wrong)
    for wrong in ("none", "some/queue/$none", "$DeadLetterQueue"):
        with pytest.raises(NotFound):
            space.entity(wrong)
    with pytest.raises(NotFound):
        space.target("some/queue/$DeadLetterQueue")
    with pytest.raises(NotFound):
        space.create_subscription("some/queue", "s")
    with pytest.raises(NotFound):
        space.delete_topic("some/queue")


def test_what_is_deleted_is_gone_with_all_it_had(world: World) -> None:
    queue = world.queue()
    world.send("a")
    woken: list[bool] = []
    queue.listen(lambda: woken.append(queue.deleted))
    queue.lock(1, ME)
    world.namespace.delete_queue("Q")
    assert woken == [True]
    assert world.namespace.next_due() is None
    with pytest.raises(NotFound):
        queue.lock(1, ME)
    with pytest.raises(NotFound):
        world.entity()
    world.kill()
    with pytest.raises(NotFound):
        world.entity()
    world.queue()
    assert world.seen() == []
    world.kill()
    assert world.send("b") == [1]


def test_a_topic_is_deleted_with_its_subscriptions(world: World) -> None:
    world.namespace.create_topic("t")
    world.namespace.create_subscription("t", "s")
    world.namespace.create_subscription("t", "u")
    world.namespace.delete_subscription("T", "S")
    with pytest.raises(NotFound):
        world.entity("t/Subscriptions/s")
    world.send("a", to="t")
    world.namespace.delete_topic("t")
    world.kill()
    with pytest.raises(NotFound):
        world.entity("t/Subscriptions/u")


# Those who wait


def test_listeners_are_called_when_something_may_be_there(world: World) -> None:
    queue = world.queue()
    calls: list[list[str]] = []

    def look() -> None:
        calls.append(bodies(queue.lock(1, ME)))  # a listener may call back

    queue.listen(look)
    world.send("a")
    assert calls == [["a"]]
    world.sleep(60)
    assert calls == [["a"], ["a"]]
    world.send("b", scheduled=world.now + 10)
    assert len(calls) == 2
    world.sleep(10)
    assert calls[2:] == [["b"]]
    queue.unlisten(look)
    world.send("c")
    assert len(calls) == 3


def test_the_next_time_is_the_soonest_of_all(world: World) -> None:
    one, two = world.queue("one"), world.queue("two", lock_duration=10)
    assert world.namespace.next_due() is None
    world.send("a", to="one")
    world.send("a", to="two")
    [locked] = one.lock(1, ME)
    assert world.namespace.next_due() == world.now + 60
    two.lock(1, ME)
    assert world.namespace.next_due() == world.now + 10
    world.sleep(10)
    assert world.namespace.next_due() == locked.locked_until
    one.complete(locked.token)
    assert world.namespace.next_due() is None


# What a killed server finds again


def test_all_is_there_after_a_kill(world: World) -> None:
    queue = world.queue(max_delivery_count=3, default_time_to_live=1000)
    world.namespace.create_topic("t")
    world.namespace.create_subscription("t", "s")
    fields = {"message_id": "m", "correlation_id": "c", "application_properties": {"x": uuid.UUID(int=1)}}
    world.send("locked", "deferred", "done", "dead", "waits", **fields)
    world.send("later", scheduled=world.now + 500)
    world.send("copy", to="t")
    locked, deferred, done, dead = queue.lock(4, ME)
    queue.defer(deferred.token)
    queue.complete(done.token)
    queue.dead_letter(dead.token, "Broken")
    world.kill()
    queue = world.entity()
    assert world.seen() == ["locked", "deferred", "waits", "later"]
    assert world.seen("q/$DeadLetterQueue") == ["dead"]
    assert world.seen("t/Subscriptions/s") == ["copy"]
    assert queue.options.max_delivery_count == 3
    assert queue.peek(0, 1)[0].incoming == Incoming(b"locked", **fields)
    assert [stored.state for stored in queue.peek(0, 5)] == ["active", "deferred", "active", "scheduled"]
    assert queue.counts().deferred == 1
    assert queue.renew(locked.token) == world.now + 60  # locks are the broker's
    assert bodies(queue.lock(5, OTHER)) == ["waits"]
    assert world.send("next") == [7]
    world.sleep(1000)
    assert world.seen() == ["deferred", "later"]


def test_a_frame_that_was_cut_short_is_as_if_it_never_was(world: World) -> None:
    world.queue()
    world.send("a")
    journal = world.folder / "journal"
    whole = journal.read_bytes()
    world.send("b", "c")
    both = journal.read_bytes()
    for length in range(len(whole), len(both)):
        journal.write_bytes(both[:length])
        world.kill()
        assert world.seen() == ["a"]
    assert world.send("d") == [2]


def test_the_journal_is_made_small_at_the_start(world: World) -> None:
    queue = world.queue()
    for _ in range(100):
        world.send("x" * 1000)
        queue.complete(queue.lock(1, ME)[0].token)
    journal = world.folder / "journal"
    assert journal.stat().st_size > 100_000
    world.kill()
    assert journal.stat().st_size < 2_000
    assert world.send("y") == [101]


# The parts


def test_deadlines_come_in_order_whatever_was_set_moved_and_dropped() -> None:
    deadlines: Deadlines[int] = Deadlines()
    expected: dict[int, float] = {}
    for number in range(2000):
        key = number * 7919 % 97
        when = float(number * 104_729 % 1009)
        if number % 5:
            deadlines.set(key, when)
            expected[key] = when
        else:
            deadlines.drop(key)
            expected.pop(key, None)
        assert deadlines.first() == min(expected.values(), default=None)
    assert len(deadlines._heap) <= 2 * len(expected) + 65
    for now in (0.0, 100.0, 500.0, 2000.0):
        due = sorted(deadlines.due(now))
        assert due == sorted(key for key, when in expected.items() if when <= now)
        expected = {key: when for key, when in expected.items() if when > now}
    assert len(deadlines) == 0


def test_a_shelf_keeps_the_order_of_numbers() -> None:
    shelf = Shelf()
    there: set[int] = set()
    for step in range(3000):
        number = step * 7919 % 1009
        if number in there:
            there.remove(number)
            shelf.remove(number)
        else:
            there.add(number)
            shelf.put(Stored(number, Incoming(b""), 0.0, number))
        if step % 100 == 0:
            assert [stored.sequence_number for stored in shelf] == sorted(there)
            assert [stored.sequence_number for stored in shelf.since(500)] == sorted(n for n in there if n >= 500)
    for number in sorted(there)[5:]:
        shelf.remove(number)
    assert [stored.sequence_number for stored in shelf] == sorted(there)[:5]
    assert len(shelf._order) <= 74


@attrs.define(eq=False)
class Kept:
    """A message in the model."""

    number: int
    where: str = "queue"
    count: int = 0
    deferred: bool = False
    scheduled_for: float = 0.0
    expires: float = math.inf
    token: uuid.UUID | None = None
    until: float = 0.0
    time_to_live: float | None = None


class QueueMachine(RuleBasedStateMachine):
    """A queue does as a list of messages would that is looked through at every step."""

    LOCK, MAXIMUM = 60.0, 3

    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self._folder.name))
        self.world.queue(
            lock_duration=self.LOCK, max_delivery_count=self.MAXIMUM, dead_lettering_on_message_expiration=True
        )
        self.kept: list[Kept] = []
        self.spent: list[uuid.UUID] = []
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.namespace.close()
            self._folder.cleanup()

    # The model

    def there(self, where: str = "queue") -> list[Kept]:
        return sorted((each for each in self.kept if each.where == where), key=lambda each: each.number)

    def waiting(self) -> list[Kept]:
        return [each for each in self.there() if not (each.token or each.deferred or each.scheduled_for)]

    def locked(self) -> list[Kept]:
        return [each for each in self.there() if each.token]

    def add(self, time_to_live: float | None, scheduled_for: float = 0.0) -> Kept:
        self.number += 1
        alive = math.inf if time_to_live is None or scheduled_for else time_to_live
        kept = Kept(self.number, expires=self.world.now + alive, scheduled_for=scheduled_for, time_to_live=time_to_live)
        self.kept.append(kept)
        return kept

    def bury(self, kept: Kept) -> None:
        kept.where = "dead"
        kept.deferred = False

    def back(self, kept: Kept, counted: bool) -> None:
        assert kept.token
        self.spent.append(kept.token)
        kept.token = None
        kept.count += counted
        if (counted and kept.count >= self.MAXIMUM) or (kept.expires <= self.world.now and not kept.deferred):
            self.bury(kept)

    # What is done to both

    @rule(lives=st.sampled_from([None, None, 30.0, 100.0]), count=st.integers(1, 4))
    def send(self, lives: float | None, count: int) -> None:
        numbers = self.world.send(*["x"] * count, time_to_live=lives)
        assert numbers == [self.add(lives).number for _ in range(count)]

    @rule(lives=st.sampled_from([None, 30.0]), delay=st.sampled_from([10.0, 70.0, 200.0]))
    def schedule(self, lives: float | None, delay: float) -> None:
        when = self.world.now + delay
        numbers = self.world.send("x", time_to_live=lives, scheduled=when)
        assert numbers == [self.add(lives, when).number]

    @precondition(lambda self: any(each.scheduled_for for each in self.there()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from([each for each in self.there() if each.scheduled_for]))
        self.world.target().cancel([kept.number])
        self.kept.remove(kept)

    @rule(limit=st.integers(1, 5))
    def lock(self, limit: int) -> None:
        expected = self.waiting()[:limit]
        given = self.world.entity().lock(limit, ME)
        assert [(each.sequence_number, each.delivery_count) for each in given] == [
            (each.number, each.count) for each in expected
        ]
        for kept, locked in zip(expected, given, strict=True):
            kept.token, kept.until = locked.token, self.world.now + self.LOCK

    @rule(limit=st.integers(1, 3))
    def take(self, limit: int) -> None:
        expected = self.waiting()[:limit]
        taken = self.world.entity().take(limit)
        assert [each.sequence_number for each in taken] == [each.number for each in expected]
        for kept in expected:
            self.kept.remove(kept)

    def some_locked(self, data: st.DataObject) -> Kept:
        return data.draw(st.sampled_from(self.locked()))

    @precondition(lambda self: self.locked())
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        kept = self.some_locked(data)
        assert kept.token
        self.world.entity().complete(kept.token)
        self.spent.append(kept.token)
        self.kept.remove(kept)

    @precondition(lambda self: self.locked())
    @rule(data=st.data(), counted=st.booleans())
    def give_back(self, data: st.DataObject, counted: bool) -> None:
        kept = self.some_locked(data)
        entity = self.world.entity()
        (entity.abandon if counted else entity.release)(kept.token)
        self.back(kept, counted)

    @precondition(lambda self: self.locked())
    @rule(data=st.data())
    def defer(self, data: st.DataObject) -> None:
        kept = self.some_locked(data)
        assert kept.token
        self.world.entity().defer(kept.token)
        self.spent.append(kept.token)
        kept.token, kept.deferred = None, True
        kept.count += 1
        if kept.count >= self.MAXIMUM:
            self.bury(kept)

    @precondition(lambda self: self.locked())
    @rule(data=st.data())
    def dead_letter(self, data: st.DataObject) -> None:
        kept = self.some_locked(data)
        assert kept.token
        self.world.entity().dead_letter(kept.token, "Broken")
        self.spent.append(kept.token)
        kept.token = None
        self.bury(kept)

    @precondition(lambda self: self.locked())
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        kept = self.some_locked(data)
        assert kept.token
        kept.until = self.world.now + self.LOCK
        assert self.world.entity().renew(kept.token) == kept.until

    @rule(data=st.data())
    def by_number(self, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.integers(1, self.number + 1), min_size=1, max_size=3, unique=True))
        there = {each.number: each for each in self.there() if each.deferred and not each.token}
        late = [there[number] for number in numbers if number in there and there[number].expires <= self.world.now]
        if set(numbers) <= set(there) and not late:
            for number, locked in zip(numbers, self.world.entity().by_sequence(numbers, ME), strict=True):
                there[number].token, there[number].until = locked.token, self.world.now + self.LOCK
        else:
            with pytest.raises(MessageNotFound):
                self.world.entity().by_sequence(numbers, ME)
            if set(numbers) <= set(there):
                for kept in late:
                    self.bury(kept)

    @precondition(lambda self: self.spent)
    @rule(data=st.data())
    def settle_too_late(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(self.spent))
        entity = self.world.entity()
        late: list[Callable[[uuid.UUID], Any]] = [entity.complete, entity.abandon, entity.renew, entity.defer]
        with pytest.raises(LockLost):
            data.draw(st.sampled_from(late))(token)

    @rule(seconds=st.sampled_from([1.0, 30.0, 60.0, 150.0]), ticked=st.booleans())
    def pass_time(self, seconds: float, ticked: bool) -> None:
        # One thing after the other, as it comes due: else a lock that lapsed early would count for what expired late.
        end = self.world.now + seconds
        while (first := self.world.namespace.next_due()) is not None and first <= end:
            assert first == self.next_in_model()
            self.world.now = first
            if ticked:
                self.world.namespace.tick()
            else:
                self.world.entity().advance()
            self.apply_due()
        self.world.now = end

    def next_in_model(self) -> float | None:
        times = [each.until for each in self.locked()]
        times += [each.scheduled_for for each in self.there() if each.scheduled_for]
        now = self.world.now
        times += [each.expires for each in self.there() if each.expires > now and each.expires != math.inf]
        return min(times, default=None)

    def apply_due(self) -> None:
        now = self.world.now
        for kept in [each for each in self.there() if each.scheduled_for and each.scheduled_for <= now]:
            self.kept.remove(kept)
            self.add(kept.time_to_live)
        for kept in self.locked():
            if kept.until <= now:
                self.back(kept, counted=True)
        for kept in self.waiting():
            if kept.expires <= now:
                self.bury(kept)

    @rule()
    def kill(self) -> None:
        self.world.kill()

    # What is always so

    @invariant()
    def all_is_accounted_for(self) -> None:
        if not hasattr(self, "world"):
            return
        entity = self.world.entity()
        shown = [(each.sequence_number, each.state, each.delivery_count) for each in entity.peek(0, 10_000)]
        assert shown == [
            (each.number, "scheduled" if each.scheduled_for else "deferred" if each.deferred else "active", each.count)
            for each in self.there()
        ]
        dead = self.world.dead().peek(0, 10_000)
        assert [each.sequence_number for each in dead] == [each.number for each in self.there("dead")]
        counts = entity.counts()
        scheduled = [each for each in self.there() if each.scheduled_for]
        assert counts.scheduled == len(scheduled)
        assert counts.active == len(self.there()) - len(scheduled)
        assert counts.deferred == len([each for each in self.there() if each.deferred])
        assert counts.size == len(self.kept)
        assert entity.ready() is bool(self.waiting())


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@attrs.define(eq=False)
class KeptSession:
    """A session in the model."""

    messages: dict[int, Kept] = attrs.field(factory=dict)
    holder: str | None = None
    until: float = 0.0


class SessionMachine(RuleBasedStateMachine):
    """Sessions do as a dictionary of lists would, each with one holder at most."""

    LOCK, MAXIMUM = 60.0, 3
    NOBODY = "whoever had it when the server was killed"
    IDS, HOLDERS = st.sampled_from("abc"), st.sampled_from(["x", "y"])

    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self._folder.name))
        self.world.queue(requires_session=True, lock_duration=self.LOCK, max_delivery_count=self.MAXIMUM)
        self.model = {name: KeptSession() for name in "abc"}
        self.dead: set[int] = set()
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.namespace.close()
            self._folder.cleanup()

    def waiting(self, name: str) -> list[Kept]:
        return [kept for _, kept in sorted(self.model[name].messages.items()) if not kept.token]

    def end(self, name: str, counted: bool) -> None:
        session = self.model[name]
        session.holder = None
        for kept in list(session.messages.values()):
            if kept.token:
                self.back(name, kept, counted)

    def back(self, name: str, kept: Kept, counted: bool) -> None:
        kept.token = None
        kept.count += counted
        if counted and kept.count >= self.MAXIMUM:
            del self.model[name].messages[kept.number]
            self.dead.add(kept.number)

    @rule(name=IDS, count=st.integers(1, 3))
    def send(self, name: str, count: int) -> None:
        for number in self.world.send(*["x"] * count, session_id=name):
            self.number += 1
            assert number == self.number
            self.model[name].messages[number] = Kept(number)

    @rule(name=IDS, holder=HOLDERS)
    def accept(self, name: str, holder: str) -> None:
        session = self.model[name]
        if session.holder:
            with pytest.raises(SessionCannotBeLocked):
                self.world.entity().accept_session(name, holder)
            return
        found = self.world.entity().accept_session(name, holder)
        assert found is not None
        assert found.session_id == name
        session.holder, session.until = holder, self.world.now + self.LOCK

    @rule(holder=HOLDERS)
    def accept_next(self, holder: str) -> None:
        free = {name for name, session in self.model.items() if not session.holder and self.waiting(name)}
        found = self.world.entity().accept_session(None, holder)
        assert (found.session_id if found else None) in (free or {None})
        if found:
            session = self.model[found.session_id]
            session.holder, session.until = holder, self.world.now + self.LOCK

    @rule(name=IDS, holder=HOLDERS, limit=st.integers(1, 3))
    def lock(self, name: str, holder: str, limit: int) -> None:
        session = self.model[name]
        if session.holder != holder:
            with pytest.raises(SessionLockLost):
                self.world.entity().lock(limit, holder, session=name)
            return
        given = self.world.entity().lock(limit, holder, session=name)
        expected = self.waiting(name)[:limit]
        assert [(each.sequence_number, each.delivery_count) for each in given] == [
            (kept.number, kept.count) for kept in expected
        ]
        assert {each.locked_until for each in given} <= {session.until}
        for kept, locked in zip(expected, given, strict=True):
            kept.token = locked.token

    @precondition(lambda self: any(kept.token for each in self.model.values() for kept in each.messages.values()))
    @rule(data=st.data(), how=st.sampled_from(["complete", "abandon", "release", "dead_letter"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        locked = [(name, kept) for name, each in self.model.items() for kept in each.messages.values() if kept.token]
        name, kept = data.draw(st.sampled_from(locked))
        token = kept.token
        getattr(self.world.entity(), how)(token)
        if how in ("complete", "dead_letter"):
            del self.model[name].messages[kept.number]
            self.dead |= {kept.number} if how == "dead_letter" else set()
        else:
            self.back(name, kept, counted=how == "abandon")
        with pytest.raises(SessionLockLost):
            self.world.entity().complete(token)

    @rule(name=IDS, holder=HOLDERS)
    def renew(self, name: str, holder: str) -> None:
        session = self.model[name]
        if session.holder != holder:
            with pytest.raises(SessionLockLost):
                self.world.entity().renew_session(name, holder)
            return
        session.until = self.world.now + self.LOCK
        assert self.world.entity().renew_session(name, holder) == session.until

    @rule(name=IDS, holder=HOLDERS)
    def close(self, name: str, holder: str) -> None:
        self.world.entity().close_session(name, holder)
        if self.model[name].holder == holder:
            self.end(name, counted=False)

    @rule(holder=HOLDERS)
    def go(self, holder: str) -> None:
        self.world.entity().holder_gone(holder, locks_too=False)
        for name, session in self.model.items():
            if session.holder == holder:
                self.end(name, counted=False)

    @rule(seconds=st.sampled_from([20.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.sleep(seconds)
        for name, session in self.model.items():
            if session.holder and session.until <= self.world.now:
                self.end(name, counted=True)

    @rule()
    def kill(self) -> None:
        self.world.kill()
        for session in self.model.values():
            session.holder = session.holder and self.NOBODY

    @invariant()
    def all_is_accounted_for(self) -> None:
        if not hasattr(self, "world"):
            return
        entity = self.world.entity()
        kept = sorted(
            (number, each.count) for session in self.model.values() for number, each in session.messages.items()
        )
        assert [(each.sequence_number, each.delivery_count) for each in entity.peek(0, 10_000)] == kept
        assert {each.sequence_number for each in self.world.dead().peek(0, 10_000)} == self.dead
        assert sorted(entity.sessions()) == [name for name, session in self.model.items() if session.messages]
        for name, session in self.model.items():
            assert entity.ready(name) is bool(self.waiting(name))
            assert len(entity.peek(0, 10_000, session=name)) == len(session.messages)
        assert entity.ready() is any(self.waiting(name) for name, each in self.model.items() if not each.holder)


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = TestQueueMachine.settings
