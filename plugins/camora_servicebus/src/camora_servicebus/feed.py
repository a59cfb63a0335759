"""The connections by which a worker gets its messages and answers for them, in a thread of their own.

In a thread, because locks have to be renewed whatever a job does to the worker's loop, and because nothing that happens
there may ever cancel a call of the client's: messages that such a call had got would be locked for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from camora_servicebus.lent import Ledger, Lent
from camora_servicebus.locks import LockTerm
from camora_servicebus.messages import added_of, job_id_of
from camora_servicebus.pump import Pump
from camora_servicebus.receiving import Answer, Came, End, Receiving, Word

__all__ = ["Feed", "Opener"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_IDLE = 0.1
"""Seconds after which a worker that does not ask any more is sent nothing more.

Longer than the service takes to answer: a worker whose slots are full asks again as soon as it has settled."""
_END = 10.0
"""Seconds that all connections have to end."""
_GOODBYE = 2.0
"""Seconds that the service has to send nothing more."""

Opener = Callable[[str, Came], Receiving]
"""`opener(queue, came)` makes a connection to a queue that is not open yet, in the feed's loop."""


class Feed:
    """Begins to connect when it is started, and to deliver as many as are asked for.

    `opener()` is called in the thread and answers with how connections are made, and with what is to be closed at the
    end. `arrived()` is called, from the thread, when there is something to take where there was nothing, or when there
    is an error to be told; `explain(error, queue)` makes one that can be raised; `astray(queue, message)` says that a
    message is not for this queue: the service is told that it is done with. `receivers` is how many connections
    each queue has, `lease` and `timeout` are seconds.
    """

    def __init__(
        self,
        opener: Callable[[], tuple[Opener, Callable[[], Coroutine[Any, Any, None]]]],
        queues: Sequence[str],
        *,
        receivers: int,
        lease: float,
        timeout: float,
        worker: str,
        arrived: Callable[[], None],
        explain: Callable[[Exception, str], Exception],
        astray: Callable[[str, Any], bool],
    ) -> None:
        self.ledger = Ledger()
        self.ready: deque[Lent] = deque()
        """What has come and was not taken yet."""
        self.error: Exception | None = None
        """Why nothing comes, while nothing does."""
        self._opener = opener
        self._queues = list(dict.fromkeys(queues))
        self._receivers = receivers
        self._lease = lease
        self._timeout = timeout
        self._worker = worker
        self._arrived = arrived
        self._explain = explain
        self._astray = astray
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Event | None = None
        self._opened = threading.Event()
        self._unborn: Exception | None = None
        """Why its loop could not be made: each needs some files."""
        self._terms: Mapping[str, LockTerm] = {queue: LockTerm() for queue in self._queues}
        self._pumps: list[Pump] = []
        self._away: set[Pump] = set()
        self._asking = False
        self._asked = 0
        self._left = 0.0
        self._armed = False
        self._announcing = False
        self._stopped = False
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()

    # Called in the worker's loop, or in other threads

    def start(self) -> None:
        """Begin, in a thread of its own. Raises `OSError` or `RuntimeError` where the system has none to give."""
        self._thread = threading.Thread(target=self._run, name=f"camora-servicebus-{self._worker}", daemon=True)
        self._thread.start()
        self._opened.wait()
        if self._unborn is not None:
            raise self._unborn

    def ask(self, count: int) -> None:
        """Let so many come: whoever asks waits for them from now on. Does not wait."""
        self._asking = True
        if count != self._asked or not all(self._enough(pump) for pump in self._pumps):
            self._asked = count
            self._call(self._want)

    def unask(self) -> None:
        """Nobody waits at this moment. Does not wait."""
        self._asking = False
        self._left = time.monotonic()
        if not self._armed and (self._asked or self.ready):
            self._call(self._arm)

    def _call(self, what: Callable[[], object]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # it has ended, and its connections with it
            self._loop.call_soon_threadsafe(what)

    async def run(self, what: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Run this in the thread and wait for it; None when the thread is gone.

        It goes on there if it is cancelled here.
        """
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            return None
        coroutine = what()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            return None
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if future.cancelled():
                return None  # the thread has ended in the middle of it
            waiting.add_done_callback(_heed)
            raise

    async def tell(self, orders: Sequence[tuple[Lent, Word]]) -> list[Answer]:
        """Tell the service the ends of these; one answer each, in order."""
        return await self.run(lambda: self._tell(orders)) or [Answer.UNKNOWN] * len(orders)

    def late(self, lent: Lent) -> bool:
        """Whether its lock should have been renewed some time ago."""
        return lent.locked_until - time.monotonic() < self._terms[lent.queue].seconds / 3

    async def stop(self) -> None:
        """Take nothing more, and give back what was not taken."""
        if not self._stopped:
            self._stopped = True
            await self.run(self._cease)

    async def close(self) -> None:
        """End the connections and the thread."""
        await self.stop()
        if not self._closing:
            self._closing = True
            self._call(self._end)
            if self._thread is not None:
                await asyncio.to_thread(self._thread.join, _END)
                if self._thread.is_alive():
                    logger.warning("worker %s: its connections do not end; they are left to themselves", self._worker)

    def _end(self) -> None:
        assert self._ended is not None
        self._ended.set()

    # Its own thread from here on

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(self._main())
        except Exception as error:
            if self._opened.is_set():
                raise
            self._unborn = error
        finally:
            self._opened.set()

    async def _main(self) -> None:
        self._ended = asyncio.Event()
        self._opened.set()
        try:
            opener, close = self._opener()
        except Exception as error:  # noqa: BLE001 -- it is told to whoever receives
            self.error = self._explain(error, self._queues[0])
            self._arrived()
            await self._ended.wait()
            return
        self._pumps = [
            Pump(queue, lambda queue=queue: opener(queue, self._came), timeout=self._timeout, changed=self._changed)  # type: ignore[misc]
            for queue in self._queues
            for _ in range(self._receivers)
        ]
        for pump in self._pumps:
            pump.start()
        keeping = asyncio.ensure_future(self._keep())
        try:
            await self._ended.wait()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, *(pump.end() for pump in self._pumps), return_exceptions=True)
            for work in list(self._tasks):
                work.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await close()

    def _changed(self, pump: Pump) -> None:
        """A connection is there again, or still is not."""
        if pump.error is None:
            if pump in self._away:
                self._away.discard(pump)
                logger.info("worker %s receives from queue %r again", self._worker, pump.queue)
            # Locks may have gone with the connection before, or not: the service knows.
            self.ledger.doubt(pump.queue)
            if self._asking and not self._stopped:
                self._give(pump)
        elif pump not in self._away:
            self._away.add(pump)
            logger.warning("worker %s: %s", self._worker, self._explain(pump.error, pump.queue))
        away = all(one in self._away for one in self._pumps)
        self.error = self._explain(pump.error, pump.queue) if away and pump.error is not None else None
        if self.error is not None:
            self._arrived()

    def _run_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Credit

    @property
    def _share(self) -> int:
        """How many each connection may bring; what is too much of several queues goes back."""
        return -(-self._asked // self._receivers)

    def _enough(self, pump: Pump) -> bool:
        receiving, share = pump.receiving, self._share
        return receiving is None or max(1, share // 2) <= receiving.wanted <= share

    def _give(self, pump: Pump) -> None:
        if pump.receiving is not None and not (self._asked and self._enough(pump)):
            pump.receiving.want(self._share)

    def _want(self) -> None:
        """Let come what was asked for."""
        if not self._stopped:
            for pump in self._pumps:
                self._give(pump)

    def _arm(self) -> None:
        """Look in a moment whether anybody asks again."""
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_later(_IDLE, self._look_idle)

    def _look_idle(self) -> None:
        self._armed = False
        if self._stopped:
            self._give_back_ready()
        elif self._asking:
            return
        elif time.monotonic() - self._left < _IDLE:
            self._arm()
        else:
            self._rest()

    def _rest(self) -> None:
        """Be sent nothing more until somebody asks again; what came and was not taken is for others."""
        self._asked = 0
        for pump in self._pumps:
            if pump.receiving is not None and pump.receiving.wanted:
                pump.receiving.want(0)
        self._give_back_ready()

    def _give_back_ready(self) -> None:
        back = []
        while self.ready:
            with contextlib.suppress(IndexError):  # the worker takes from the same end
                back.append(self.ready.popleft())
        if back:
            self._run_task(self._give_back(back, End.RELEASE))

    # Messages that come

    def _came(self, by: Receiving, message: Any, number: int, tag: bytes) -> None:
        pump = next(pump for pump in self._pumps if pump.receiving is by)
        pump.busy = time.monotonic()
        until, enqueued = message.locked_until_utc, message.enqueued_time_utc
        lent = Lent(
            by,
            message,
            queue=pump.queue,
            job_id=job_id_of(message),
            deliveries=max(1, (message.delivery_count or 0) + 1 + added_of(message)),
            number=number,
            tag=tag,
            lock=self._terms[pump.queue].of_message(until and until.timestamp(), enqueued and enqueued.timestamp()),
        )
        self.ledger.add(lent)
        if self._astray(pump.queue, message):
            self._run_task(self._give_back([lent], End.COMPLETE))
            if self._asking:
                self._give(pump)
            return
        self.ready.append(lent)
        if self._stopped or not self._asking:
            self._arm()
        elif not self._announcing:
            # Once for all that comes in one piece: to wake the worker's thread for each would cost more than the rest.
            self._announcing = True
            asyncio.get_running_loop().call_soon(self._announce)

    def _announce(self) -> None:
        self._announcing = False
        self._arrived()

    # Answers that go

    async def _tell(self, orders: Sequence[tuple[Lent, Word]]) -> list[Answer]:
        groups: dict[tuple[Receiving, str, Word], list[Lent]] = {}
        for lent, word in orders:
            groups.setdefault((lent.by, lent.queue, word), []).append(lent)
        answers: dict[Lent, Answer] = {}

        async def group(by: Receiving, queue: str, word: Word, lent: list[Lent]) -> None:
            answers.update(zip(lent, await self._tell_group(by, queue, word, lent), strict=True))

        await asyncio.gather(*(group(*key, lent) for key, lent in groups.items()))
        return [answers[lent] for lent, _ in orders]

    async def _tell_group(self, by: Receiving, queue: str, word: Word, lent: list[Lent]) -> list[Answer]:
        """By the connection that brought them, if it is still there; by their lock tokens otherwise.

        Also where it brings no answer, or a refusal: whoever answers a delivery has done with it, and hears no more
        of it but by its lock token.
        """
        deadline = time.monotonic() + self._timeout
        answers = [Answer.UNKNOWN] * len(lent)
        if self._stands(by):
            answers = await by.tell(lent, word, self._timeout / 2)
        left = [place for place, answer in enumerate(answers) if answer is Answer.UNKNOWN]
        if left and (other := await self._connection(queue, deadline, first=by)) is not None:
            some = [lent[place] for place in left]
            more = await other.tell_by_token(some, word, max(0.1, deadline - time.monotonic()))
            for place, answer in zip(left, more, strict=True):
                answers[place] = answer
        return answers

    def _stands(self, receiving: Receiving) -> bool:
        return any(pump.receiving is receiving for pump in self._pumps)

    async def _connection(self, queue: str, deadline: float, *, first: Receiving | None = None) -> Receiving | None:
        """A connection to this queue, as soon as there is one; `first` if that stands."""
        pumps = [pump for pump in self._pumps if pump.queue == queue]
        while True:
            if first is not None and self._stands(first):
                return first
            for pump in pumps:
                if pump.receiving is not None:
                    return pump.receiving
            if time.monotonic() >= deadline or self._closing:
                return None
            await asyncio.sleep(0.02)

    async def _give_back(self, lent: Sequence[Lent], end: End) -> None:
        """Tell the service that these are for others; what it does not hear of comes back with its lock."""
        mine = [one for one, held in zip(lent, self.ledger.begin(lent), strict=True) if held]
        await self._tell_ended(mine, end)

    async def _tell_ended(self, lent: Sequence[Lent], end: End) -> None:
        if lent:
            word = Word(end)
            try:
                await self._tell([(one, word) for one in lent])
            finally:
                self.ledger.finish(lent)

    # Locks

    async def _keep(self) -> None:
        """Renew the locks of what the worker has, and give back what it has not asked to keep."""
        while True:
            term = min((one.seconds for one in self._terms.values()), default=self._lease)
            await asyncio.sleep(max(0.02, min(1.0, self._lease / 8, term / 10)))
            now = time.monotonic()
            overdue = min(self._lease, term) / 2
            if any(now - one.since > overdue for one in list(self.ready)):
                # The worker's loop stands still. What nobody took was in nobody's hands: that is no delivery.
                self._rest()
                self._arrived()  # whoever waits asks anew
            if lapsed := self.ledger.lapsed(now):
                self._run_task(self._tell_ended(lapsed, End.ABANDON))
            by_queue: dict[str, list[Lent]] = {}
            for one in self.ledger.to_renew(now):
                by_queue.setdefault(one.queue, []).append(one)
            for queue, some in by_queue.items():
                self._run_task(self._renew(queue, some))
            if lost := self.ledger.unlocked(time.monotonic()):
                logger.warning(
                    "worker %s: %d locks could not be renewed in time; the jobs may run elsewhere",
                    self._worker,
                    len(lost),
                )

    async def _renew(self, queue: str, lent: Sequence[Lent]) -> None:
        term = self._terms[queue]
        asked = time.monotonic()
        try:
            receiving = await self._connection(queue, asked + term.seconds / 3)
            if receiving is None:
                return
            patience = max(0.2, min(self._timeout, term.seconds / 3))
            asked = time.monotonic()
            for one, answer in zip(lent, await receiving.renew(lent, patience), strict=True):
                if answer is Answer.LOST:
                    self._lost(one)
                elif not isinstance(answer, Answer):
                    one.renewed = asked
                    one.locked_until = asked + term.of_renewal(answer)
        finally:
            for one in lent:
                one.renewing = False

    def _lost(self, lent: Lent) -> None:
        if lent.doubtful:
            # Its end was told and nobody knows whether it was heard: this looks as if it was.
            lent.renewed = lent.locked_until  # so that it is not asked again
            return
        logger.warning("worker %s: the lock of job %s is lost; it may run elsewhere", self._worker, lent.job_id)
        self.ledger.finish([lent])

    # The end

    async def _cease(self) -> None:
        self._asked = 0
        await asyncio.gather(
            *(pump.receiving.drain(_GOODBYE) for pump in self._pumps if pump.receiving is not None),
            return_exceptions=True,
        )
        self._give_back_ready()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GOODBYE)


def _heed(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
