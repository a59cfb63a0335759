"""Schedules at run time: stored, listed, paused, removed."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from camora.clock import Clock
from camora.connections import Connections
from camora.errors import ConfigurationError, EncodeError, PayloadError, UnsupportedCapability
from camora.events import EventBus
from camora.ids import IdSource
from camora.interfaces.codec import Codec
from camora.interfaces.schedule import CatchUp, Overlap, ScheduleRecord, ScheduleStore, Trigger
from camora.job import Job
from camora.message import Message
from camora.plugins import Catalog
from camora.schedules.declared import DeclaredSchedule, DeclaredSchedules
from camora.schedules.described import checked_description, make_trigger
from camora.schedules.parts import ScheduleParts
from camora.schedules.shown import Schedule
from camora.schedules.template import message_of, template_of
from camora.schedules.ticks import moment_of, next_tick
from camora.signature import Signature
from camora.task import Task

__all__ = ["Schedules"]


class Schedules:
    """An app's stored schedules. All methods do I/O.

    They raise `UnsupportedCapability` where neither broker nor result backend keeps schedules, `BrokerUnavailable`
    when the store is away, and `ConfigurationError` for a key that there is not, with the nearest one that there is.
    """

    def __init__(
        self,
        *,
        connections: Connections,
        codec: Codec,
        clock: Clock,
        catalog: Catalog,
        build: Callable[[Signature[Any]], Message],
        signature: Callable[..., Signature[Any]],
        events: EventBus,
        declared: DeclaredSchedules,
        app: str = "camora",
        publish: Callable[[Message], Awaitable[Message]] | None = None,
        ids: Callable[[], str] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self.parts = ScheduleParts(
            connections=connections,
            codec=codec,
            clock=clock,
            catalog=catalog,
            events=events,
            app=app,
            publish=publish,
        )
        self.declared = declared
        self._build = build
        self._signature = signature
        self._ids = ids or IdSource()
        self._logger = logger or logging.getLogger("camora")

    async def add(
        self,
        key: str,
        what: Any,
        trigger: Trigger,
        *,
        group: str = "default",
        catch_up: CatchUp = "one",
        overlap: Overlap = "allow",
    ) -> Schedule:
        """Store a schedule that stays until it is removed, or ends; it takes the place of one added under this key.

        `what` is a signature, a task, a task object or a task's name. Raises `ConfigurationError` for what the stores
        refuse, for a key that code or settings have taken, and for a trigger that never comes.
        """
        if key in self.declared.by_key:
            raise ConfigurationError(
                f"schedule {key!r} is declared by this app; what is added at run time needs a key of its own"
            )
        given = DeclaredSchedule(
            key=key,
            signature=self._signature(what, (), {}),
            trigger=trigger,
            group=group,
            catch_up=catch_up,
            overlap=overlap,
            origin="runtime",
        )
        store = await self.parts.store()
        await self._check_overlap([given])
        record = self._record(given)
        if record.next is None:
            raise ConfigurationError(
                f"schedule {key!r}: {trigger!r} never comes after now; give a moment that is ahead"
            )
        await store.put([record])
        [stored] = await store.get([key])
        # Another one may have removed it already.
        return Schedule.of(stored or record)

    async def sync(self) -> None:
        """Store what code and settings declare, and remove what this app declared before and does not any more.

        Raises `ConfigurationError` for arguments that do not fit, and for a key that somebody else has taken.

        Schedules added at run time stay, and so do those that apps of other names declare. Of a schedule that is there
        already, pause and last tick stay; the next tick does, too, unless the trigger is another one. Every scheduler
        does this when it starts.
        """
        store = await self.parts.store()
        declared = list(self.declared.by_key.values())
        await self._check_overlap(declared)
        self._remark_on_tasks(declared)
        await store.put([self._record(schedule) for schedule in declared])
        gone = [
            record.key
            for record in await store.list()
            if record.app == self.parts.app and record.origin != "runtime" and record.key not in self.declared.by_key
        ]
        if gone:
            await store.remove(gone)
            self._logger.info("removed schedules that are not declared any more: %s", ", ".join(gone))

    async def pause(self, key: str) -> None:
        """Fire it no more, until resumed; a deploy does not change that."""
        store = await self.parts.store()
        if not await store.pause([key]):
            raise await self._unknown(store, key)

    async def resume(self, key: str) -> None:
        """Fire it again, from its next tick on; ticks that came while it was paused are left out.

        One that is not paused stays as it is, with the ticks that it owes.
        """
        store = await self.parts.store()
        record = await self._get(store, key)
        if not record.paused:
            return
        trigger = make_trigger(self.parts.catalog, record.trigger)
        following = next_tick(trigger, self.parts.clock.now_ms())
        if not await store.pause([key], paused=False, next_ticks=[following]):
            raise await self._unknown(store, key)

    async def remove(self, key: str) -> None:
        """Delete it. What code or settings still declare comes back when a scheduler starts: pause that instead."""
        store = await self.parts.store()
        if not await store.remove([key]):
            raise await self._unknown(store, key)

    async def run_now(self, key: str) -> Job[Any]:
        """Dispatch its job once, now, beside its ticks, which stay as they are; a paused one, too."""
        parts = self.parts
        store = await parts.store()
        record = await self._get(store, key)
        template = parts.codec.decode(record.message)
        job_id = await parts.send(
            message_of(template, self._ids(), parts.clock.now_ms(), {"camora.schedule": record.key})
        )
        job: Job[Any] = await self._signature(record.task, (), {}).task.port.job(job_id)
        return job

    async def list(self, group: str | None = None) -> Sequence[Schedule]:
        """All that are stored, or those of a group, in order of key."""
        return [Schedule.of(record) for record in await (await self.parts.store()).list(group)]

    async def get(self, key: str) -> Schedule:
        """The stored schedule of this key."""
        return Schedule.of(await self._get(await self.parts.store(), key))

    async def preview(self, what: str | Trigger, count: int = 10) -> Sequence[datetime]:
        """The next moments, at most `count`, of a trigger, or of a schedule that is stored or declared."""
        trigger = await self._trigger(what) if isinstance(what, str) else what
        moments: list[datetime] = []
        tick: int | None = self.parts.clock.now_ms()
        while len(moments) < count and tick is not None:
            tick = next_tick(trigger, tick)
            if tick is not None:
                moments.append(moment_of(tick))
        return moments

    # Inside

    async def _trigger(self, key: str) -> Trigger:
        if (declared := self.declared.by_key.get(key)) is not None:
            return declared.trigger
        record = await self._get(await self.parts.store(), key)
        return make_trigger(self.parts.catalog, record.trigger)

    def _record(self, schedule: DeclaredSchedule) -> ScheduleRecord:
        message = self._message(schedule)
        return ScheduleRecord(
            key=schedule.key,
            group=schedule.group,
            trigger=checked_description(self.parts.catalog, schedule.key, schedule.trigger),
            task=message.task,
            queue=message.queue,
            message=self.parts.codec.encode(template_of(message)),
            origin=schedule.origin,
            app=self.parts.app,
            catch_up=schedule.catch_up,
            overlap=schedule.overlap,
            next=next_tick(schedule.trigger, self.parts.clock.now_ms()),
        )

    def _message(self, schedule: DeclaredSchedule) -> Message:
        try:
            return self._build(self._known(schedule.signature))
        except (EncodeError, PayloadError) as error:
            raise ConfigurationError(f"schedule {schedule.key!r}: {error}") from None

    def _known(self, signature: Signature[Any]) -> Signature[Any]:
        """The same; a task that was only a name when this was declared may be registered by now."""
        if isinstance(signature.task, Task):
            return signature
        task = self._signature(signature.task.name, (), {}).task
        return Signature(task, signature.args, signature.kwargs, options=signature.options_)

    def _remark_on_tasks(self, schedules: Iterable[DeclaredSchedule]) -> None:
        for schedule in schedules:
            task = self._known(schedule.signature).task
            if not isinstance(task, Task):
                self._logger.warning(
                    "schedule %s: this app has no task %r; its arguments are not checked, and its jobs go to the "
                    "default queue",
                    schedule.key,
                    task.name,
                )

    async def _check_overlap(self, schedules: Iterable[DeclaredSchedule]) -> None:
        broker = (await self.parts.connection()).broker
        for schedule in schedules:
            if schedule.overlap == "skip" and not broker.capabilities.inspect:
                raise UnsupportedCapability(
                    f'schedule {schedule.key!r}: overlap="skip" asks what became of the job before, and {broker!r} '
                    "cannot tell",
                    capability="inspect",
                )

    async def _get(self, store: ScheduleStore, key: str) -> ScheduleRecord:
        [record] = await store.get([key])
        if record is None:
            raise await self._unknown(store, key)
        return record

    async def _unknown(self, store: ScheduleStore, key: str) -> ConfigurationError:
        if key in self.declared.by_key:
            return ConfigurationError(
                f"schedule {key!r} is declared, but not stored yet: a scheduler does that when it starts "
                "(camora scheduler), and so does  await app.schedules.sync()"
            )
        near = difflib.get_close_matches(key, [record.key for record in await store.list()], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "camora schedules list  shows all"
        return ConfigurationError(f"there is no schedule {key!r}; {hint}")
