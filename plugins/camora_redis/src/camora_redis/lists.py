"""Lists that other programs share: putting messages there, and moving them into the streams of their queues."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

import msgspec
from camora.errors import BrokerUnavailable, ConfigurationError, UnsupportedCapability
from camora.message import Envelope

from camora_redis.calling import answered
from camora_redis.errors import ConnectionLost, ServerError, unavailable
from camora_redis.identity import head_of
from camora_redis.kinds import ListQueue
from camora_redis.lasting import Lasting
from camora_redis.link import Link
from camora_redis.publishing import packed_envelope, replicas_for
from camora_redis.scripting import script
from camora_redis.wire import Wire, pack

__all__ = ["Mover", "push"]

_MOVE, _PUSH = script("list_move"), script("list_push")
_STEP = 50
"""How many messages are moved in one step."""
_NAP = 5.0
"""Seconds after which waiting at a list begins anew."""
_PAUSED = 1.0
"""Seconds until a paused queue is looked at again."""
_SHORTEST, _LONGEST = 0.05, 2.0
"""Seconds at most before another try, at first and at last."""
_pack = msgspec.msgpack.Encoder().encode

logger = logging.getLogger("camora.redis")


def check_body(envelope: Envelope) -> None:
    """Raises `UnsupportedCapability` for a message whose bytes do not say by themselves which job they are."""
    if head_of(envelope.body).id != envelope.id:
        raise UnsupportedCapability(
            f"{envelope.task}: queue {envelope.queue!r} is a ListQueue: what lies there must tell its id by itself, in "
            "JSON or MessagePack, and this app's codec writes neither. Use another codec, or a plain queue",
            capability="queue_kinds",
        )


async def push(link: Link, queue: ListQueue, envelopes: Sequence[Envelope]) -> None:
    """Put messages at the end of a list, as they are, and in this order.

    Raises as `Link.call`, and `TooFewCopies` or `ConfigurationError`.
    """
    key = queue.list_key
    bodies = [envelope.body for envelope in envelopes]
    try:
        # In one step: nobody knows which of them are there already, so a part of them could not be repeated.
        if replicas := replicas_for(link, envelopes):
            await link.run_copied(replicas, _PUSH, (key,), *bodies)
        else:
            await link.call(key, "RPUSH", key, *bodies)
    except ServerError as error:
        raise _explained(link, queue, error) from error


def _explained(link: Link, queue: ListQueue, error: ServerError) -> Exception:
    if error.code == "WRONGTYPE":
        return ConfigurationError(
            f"queue {queue.name!r} is a ListQueue, and {queue.list_key!r} is no list: choose another with "
            "ListQueue(…, key=…)"
        )
    return unavailable(link.who, error)


class Mover:
    """Moves what comes into a list to where leases, retries and dead letters are. Belongs to one event loop.

    Each step is one script, which moves only what it finds in the list: any number may do this beside each other, and
    no message is ever out of the server. What cannot be read is moved under a new id, for the worker to bury.
    """

    def __init__(self, link: Link, queue: ListQueue) -> None:
        self._link = link
        self._queue = queue
        self._key = queue.list_key
        self._stream = link.store.keys.of_queue(queue.name)
        self._wire: Wire | None = None
        self._moving = Lasting(self._go_on)

    async def open(self) -> None:
        """Move what is there, and begin to wait for more. Raises `BrokerUnavailable` or `ConfigurationError`."""
        await self._step()
        self._moving.start()

    async def _go_on(self) -> None:
        tries = 0
        while True:
            try:
                moved = await self._step()
                if tries:
                    logger.info("queue %s: taking from the list %s again", self._queue.name, self._key)
                    tries = 0
                if moved < 0:
                    await asyncio.sleep(_PAUSED)
                elif moved == 0:
                    await self._bell()
            except (BrokerUnavailable, ConfigurationError) as error:
                if not tries:
                    logger.warning("queue %s: cannot take from the list %s: %s", self._queue.name, self._key, error)
                tries += 1
                await asyncio.sleep(random.uniform(0, min(_LONGEST, _SHORTEST * 2 ** min(tries, 10))))  # noqa: S311

    async def _step(self) -> int:
        """Move the first ones; how many, or -1 where the queue is paused."""
        try:
            bodies = await self._link.call(self._key, "LRANGE", self._key, 0, _STEP - 1)
        except ConnectionLost as error:
            raise unavailable(self._link.who, error) from error
        except ServerError as error:
            raise _explained(self._link, self._queue, error) from error
        if not bodies:
            return 0
        blobs: list[bytes] = []
        batch = [packed_envelope(_envelope(self._queue.name, body), blobs) for body in bodies]
        call = self._link.run(_MOVE, (self._stream, self._key), _pack(batch), *blobs)
        moved: int = await answered(self._link, call)
        if 0 <= moved < len(bodies):
            # Somebody else takes from it: that one first, or we do all the work for nothing each time.
            await asyncio.sleep(random.uniform(0, _SHORTEST))  # noqa: S311
            return 1
        return moved

    async def _bell(self) -> None:
        """Wait until something is there: its first message is put back where it was, in the same step."""
        wire = self._wire
        if wire is None or wire.closed:
            wire = self._wire = await self._link.new_wire(self._key)
        words = pack(("BLMOVE", self._key, self._key, "LEFT", "LEFT", _NAP))
        answer = await answered(self._link, wire.send(words, longer=_NAP))
        if isinstance(answer, ServerError):
            await wire.close()
            self._link.topology.look_again()
            if answer.code not in ("MOVED", "ASK", "UNBLOCKED"):
                raise unavailable(self._link.who, answer)

    async def stop(self) -> None:
        """Leave the list alone. May be repeated."""
        await self._moving.stop()
        if self._wire is not None:
            await self._wire.close()


def _envelope(queue: str, body: bytes) -> Envelope:
    head = head_of(body)
    return Envelope(
        id=head.id,
        task=head.task,
        queue=queue,
        body=body,
        due=head.due,
        expires=head.expires,
        priority=head.priority,
        key=head.key,
        key_ttl=head.key_ttl,
    )
