"""The app: it composes the parts, and does nothing else itself."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

import attrs

from camora import plugins
from camora.binding import Binding
from camora.chain import Link, arrange, compose_dispatch
from camora.clock import SYSTEM_CLOCK, Clock, seconds
from camora.connections import Connections, Portal
from camora.declarations import Declarations
from camora.dispatchable import Composer, Dispatchable
from camora.dispatcher import Dispatcher, NamedTask
from camora.dispatching import Dispatching, is_one_job
from camora.engine import FRAMEWORK, EngineParts
from camora.errors import ConfigurationError, DispatchError
from camora.events import EventBus
from camora.extensions import Extensions
from camora.host import AppHost
from camora.ids import IdSource
from camora.interfaces.broker import Broker
from camora.interfaces.codec import Codec
from camora.interfaces.injector import Injector
from camora.interfaces.middleware import Middleware
from camora.interfaces.observer import Observer
from camora.interfaces.pool import PoolSettings
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import CatchUp, Overlap, Trigger
from camora.job import Job
from camora.jobs import Jobs
from camora.letters import Letters
from camora.options import (
    DispatchOptions,
    DispatchOptionsDict,
    PatternOptions,
    TaskOptions,
    TaskOptionsDict,
    check_name,
    split_task_options,
)
from camora.outbox import Outbox
from camora.plugin_options import PluginOptions
from camora.plugins import Catalog
from camora.posting import KEPT, Posting
from camora.queue import Queue
from camora.queue_control import QueueControl
from camora.reference import reference_of
from camora.registry import TaskRegistry
from camora.retry import classify
from camora.schedules import DeclaredSchedules, Schedules
from camora.settings import AppSettings, WorkerSettings
from camora.signature import Signature
from camora.task import AnyTask, AsyncTask, BaseTask, SyncTask, Task, check_format, check_task_function, default_name

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self, Unpack

    from camora.outcome import DeadLetter
    from camora.scheduler import Scheduler
    from camora.worker.supervisor import WorkerProcesses
    from camora.worker.worker import Worker

__all__ = ["Camora"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
C = TypeVar("C", bound=type[BaseTask])


class Camora:
    """Tasks, and the stack they run on.

    `broker` and `results` are URLs or instances; results default to the broker's own store where its plugin has one,
    else to memory, and `results=False` keeps none. `codec`, `result_codec` are names or instances. `pools` are named
    pools for `@app.task(pool=…)`. `outbox` is the database of your own tables, where the broker is another store: what
    is dispatched with `options(connection=…)` is stored there, and any worker relays it. `extensions` are the settings
    of what plugins add to every app, by name: mappings, or objects of their settings classes. Making an app does no
    I/O; it connects on first use, in every event loop that uses it, and `async with app:` (or `await app.close()`) lets
    go.

    Raises `UnknownPlugin`, `PluginConflict`, `PluginLoadError` or `SettingsError`.
    """

    def __init__(
        self,
        broker: str | Broker | None = None,
        *,
        results: str | ResultBackend | bool | None = None,
        codec: str | Codec | None = None,
        result_codec: str | Codec | None = None,
        retry_policy: Any = None,
        dependencies: Iterable[Any] = (),
        middleware: Sequence[Middleware] = (),
        queues: Iterable[str | Queue] = (),
        outbox: str | Broker | None = None,
        name: str | None = None,
        logger: logging.Logger | None = None,
        pools: Mapping[str, PoolSettings] | None = None,
        observers: Iterable[Observer] = (),
        task_options: Mapping[str, Mapping[str, Any]] | None = None,
        settings: AppSettings | None = None,
        worker: WorkerSettings | None = None,
        extensions: Mapping[str, Any] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        catalog: Catalog | None = None,
    ) -> None:
        self.name = name or "camora"
        self.logger = logger or logging.getLogger("camora")
        self.settings = settings or AppSettings()
        self.worker_settings = worker
        self.catalog = catalog or plugins.load()
        self.clock = clock
        self.plugin_options: PluginOptions = self.catalog.items["camora_task_options"]
        self._declarations = Declarations()
        for queue in queues:
            self._declarations.mention(self._declarations.name_of(queue, "Camora(queues=[…])"))
        if retry_policy is not None:
            classify(retry_policy)
        self.tasks = TaskRegistry()
        self.broker = self._make_broker(broker)
        self.results = self._make_results(results, broker)
        self.outbox = None if outbox is None else Outbox(self._make_broker(outbox, "outbox"), self.name)
        self.codec: Codec = self._make("camora_codecs", codec, "json")
        self.result_codec: Codec = (
            self.codec if result_codec is None else self._make("camora_codecs", result_codec, "json")
        )
        self.injector: Injector = self._make("camora_injectors", None, "svcs")
        for factory in dependencies:
            self.injector.add(factory)
        self._retry_policy = retry_policy
        self._pools = dict(pools or {})
        self._middleware = [Link(item, "app") for item in middleware]
        self._extension_settings = dict(extensions or {})
        self._observers = tuple(observers)
        self._task_options = PatternOptions(task_options or {})
        self._ids: Callable[[], str] = IdSource()
        self._start_hooks: list[Callable[[], Any]] = []
        self._stop_hooks: list[Callable[[], Any]] = []
        self._declared_schedules = DeclaredSchedules()
        self._compose()

    @classmethod
    def from_toml(
        cls, path: str | Path | None = None, *, profile: str | None = None, dependencies: Iterable[Any] = ()
    ) -> Self:
        """An app from `camora.toml`, or `[tool.camora]` of `pyproject.toml`, found upwards from the working folder.

        `profile` (else `CAMORA_PROFILE`) lays `[profiles.NAME]` over it; `CAMORA_…` variables go over both.
        `dependencies` are code, which no file can hold: those of the app. Raises `SettingsError` holding every mistake,
        each with file, line and what was expected.
        """
        from camora.config import app_arguments, read

        found = read(path, profile=profile)
        app = cls(**app_arguments(found), dependencies=dependencies)
        found.place_queues(app)
        found.declare_schedules(app)
        return app

    def _compose(self) -> None:
        supports = self.catalog.items["camora_types"].values()
        self._binding = Binding(self.injector, [support.make() for support in supports])
        outbox = None if self.outbox is None else self.outbox.broker
        self._connections = Connections(self.broker, self.results, self._declarations, outbox)
        self._portal = Portal()
        self.events = EventBus(self._observers, logger=self.logger)
        # Anew each time: what an extension keeps belongs to the stores below it.
        self._extensions = Extensions(self.catalog, self._extension_settings)
        self._jobs = Jobs(
            connections=self._connections,
            portal=self._portal,
            codec=self.codec,
            result_codec=self.result_codec,
            binding=self._binding,
            tasks=self.tasks,
            clock=self.clock,
            ttl=self.settings.result_ttl,
            extensions=self._extensions,
            publish=lambda envelopes: self._dispatcher.publish(envelopes),
        )
        self._letters = Letters(self._connections, self.codec, self._extensions)
        self._dispatcher = Dispatcher(
            connections=self._connections,
            codec=self.codec,
            clock=self.clock,
            ids=self._ids,
            parameters_of=self._binding.parameters_of,
            jobs=self._jobs,
            events=self.events,
            broker=self.broker,
            declarations=self._declarations,
            task_of=self.tasks.get,
            largest=self.settings.max_message_size,
            timeout=self.settings.dispatch_timeout,
            outbox=self.outbox,
        )
        self._dispatcher.links = arrange(self._links, elsewhere=FRAMEWORK)
        self._dispatcher.chain = compose_dispatch(self._dispatcher.links, self._dispatcher.publish_message)
        self.schedules = Schedules(
            connections=self._connections,
            codec=self.codec,
            clock=self.clock,
            catalog=self.catalog,
            build=self._dispatcher.build_for_later,
            signature=self._scheduled,
            events=self.events,
            declared=self._declared_schedules,
            app=self.name,
            publish=self._dispatcher.chain or self._dispatcher.publish_message,
            ids=self._ids,
            logger=self.logger,
        )
        self.queue_control = QueueControl(self._connections, self.events, self.clock)
        self._posting = Posting(
            connections=self._connections,
            result_codec=self.result_codec,
            binding=self._binding,
            clock=self.clock,
            ids=self._ids,
            timeout=self.settings.dispatch_timeout,
        )
        self._extensions.attach(self._host())

    @property
    def _links(self) -> list[Link]:
        return [*self._extensions.links, *self._middleware]

    def _host(self) -> AppHost:
        return AppHost(
            name=self.name,
            clock=self.clock,
            codec=self.codec,
            result_codec=self.result_codec,
            settings=self.settings,
            logger=self.logger,
            jobs=self._jobs,
            new_id=self._ids,
            port=self,
            tasks=self.tasks,
            binding=self._binding,
            connections=self._connections,
            dispatcher=self._dispatcher,
        )

    @property
    def queues(self) -> tuple[Queue, ...]:
        """The queues that the app declares, by `queues=` or with its tasks, or names in `queues=`."""
        return self._declarations.queues

    # Making the parts

    def _make(self, hook: str, given: Any, default: str) -> Any:
        if given is not None and not isinstance(given, str):
            return given
        return self.catalog.provider(hook, given or default).make()

    def _make_broker(self, given: str | Broker | None, what: str = "broker") -> Broker:
        if isinstance(given, Broker):
            return given
        url = "memory://" if given is None else given
        if ":" not in str(url):
            raise ConfigurationError(
                f"{what}={given!r}: give a URL such as 'memory://' or 'sqlite:///camora.db', or a Broker made by hand"
            )
        return cast("Broker", self.catalog.for_url("camora_brokers", url).make(url))

    def _make_results(
        self, given: str | ResultBackend | bool | None, broker: str | Broker | None
    ) -> ResultBackend | None:
        if given is False:
            return None
        if isinstance(given, ResultBackend):
            return given
        if isinstance(given, str):
            return cast("ResultBackend", self.catalog.for_url("camora_result_backends", given).make(given))
        # The broker's own store, if it is one: results and acknowledgements are then one step.
        return self.broker.own_results()

    # Declaring tasks

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptionsDict]) -> _Decorator: ...
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Register a function: bare (`@app.task`) or with options (`@app.task(queue="mail")`).

        Raises `DuplicateTask`, or `ConfigurationError` for an unknown or impossible option.
        """
        if function is None:
            return _Decorator(self, options)
        return self._register(function, options)

    @overload
    def register(self, what: C, /, **options: Unpack[TaskOptionsDict]) -> C: ...  # type: ignore[overload-overlap]
    @overload
    def register(  # type: ignore[overload-overlap]
        self, what: Callable[P, Coroutine[Any, Any, R]], /, **options: Unpack[TaskOptionsDict]
    ) -> AsyncTask[P, R]: ...
    @overload
    def register(self, what: Callable[P, R], /, **options: Unpack[TaskOptionsDict]) -> SyncTask[P, R]: ...
    @overload
    def register(self, /, **options: Unpack[TaskOptionsDict]) -> _Decorator: ...
    def register(self, what: Any = None, /, **options: Any) -> Any:
        """Register a task class or a function; also a bare decorator. A class stays what it is. Raises as `task`."""
        return _Decorator(self, options) if what is None else self._register(what, options)

    def fallback(self, *, queue: str | Queue, **options: Any) -> _FallbackDecorator:
        """Register a function that gets any message of this queue whose task nobody registered.

        It takes one parameter annotated `Message`; others are injected.
        """
        name = self._declarations.name_of(queue, "a fallback")
        return _FallbackDecorator(self, name, dict(options))

    def _register(self, function: Any, options: Mapping[str, Any], *, fallback: str | None = None) -> Any:
        is_async = check_task_function(function)
        label = options.get("name") or default_name(function)
        where = f"task {label!r}"
        given, owned = split_task_options(self._task_options.over(label, options), self.plugin_options, where)
        if isinstance(given.get("queue"), Queue):
            given["queue"] = self._declarations.name_of(given["queue"], where)
        config = TaskOptions.build(given, where)
        for option in ("key", "limit_by"):
            check_format(f"{where}: {option}", getattr(config, option), function)
        if config.timeout is None and config.pool in self._pools:
            config = attrs.evolve(config, timeout=self._pools[config.pool].timeout)
        kind = AsyncTask if is_async else SyncTask
        task: AnyTask = kind(
            function,
            name=check_name("task", config.name or label),
            config=config,
            port=self,
            is_async=is_async,
            is_fallback=fallback is not None,
            owned=owned,
        )
        if owned is not None:
            self._use_options(owned, task)
        if fallback is not None:
            self.tasks.add_fallback(fallback, task)
        else:
            self.tasks.add(task)
        self._declarations.use(fallback or config.queue)
        return function if isinstance(function, type) else task

    def _use_options(self, owned: Mapping[str, Any], task: AnyTask) -> None:
        if task.is_fallback:
            raise ConfigurationError(
                f"task {task.name!r}: {next(iter(owned))!r} says how jobs are sent; a fallback only gets them"
            )
        self._declarations.use_options(owned, f"task {task.name!r}")

    def on_worker_start(self, hook: Callable[[], T]) -> Callable[[], T]:
        """Call this (async or not) when a worker has connected, before it takes jobs; its error stops the worker."""
        self._start_hooks.append(hook)
        return hook

    def on_worker_stop(self, hook: Callable[[], T]) -> Callable[[], T]:
        """Call this (async or not) when a worker has settled its last job; its error is logged."""
        self._stop_hooks.append(hook)
        return hook

    # Dispatching

    async def dispatch(
        self, what: BaseTask | type[BaseTask] | str | Dispatchable[T], /, *args: Any, **kwargs: Any
    ) -> Job[Any]:
        """Dispatch a task object, a task class or a name with arguments, a signature, or what was composed of several.

        Raises as `Task.dispatch`.
        """
        return await self.dispatch_signature(self._dispatchable(what, args, kwargs))

    def dispatch_sync(
        self, what: BaseTask | type[BaseTask] | str | Dispatchable[T], /, *args: Any, **kwargs: Any
    ) -> Job[Any]:
        """`dispatch` for code without an event loop; blocks."""
        return self.dispatch_signature_sync(self._dispatchable(what, args, kwargs))

    def options(self, **options: Unpack[DispatchOptionsDict]) -> ConfiguredDispatch:
        """This app with options for one dispatch: `await app.options(delay=10).dispatch(SendEmail(…))`.

        Raises `ConfigurationError` for an unknown or impossible option.
        """
        return ConfiguredDispatch(self, DispatchOptions().merge(options, "dispatch", self.plugin_options))

    def dispatch_many(self, signatures: Any) -> Dispatching:
        """Dispatch an iterable (async or not) of signatures, in batches; what was composed of several, each by itself.

        `await` it for the list of jobs, or `async for job in` it, in constant memory.
        """
        return Dispatching(self._dispatcher, signatures, each=self.dispatch_signature)

    async def dispatch_signature(self, signature: Dispatchable[Any]) -> Job[Any]:
        """Dispatch a signature, or what was composed of several."""
        if is_one_job(signature):
            return await self._dispatcher.one(signature)
        return await self.composer.dispatch(signature)

    def dispatch_signature_sync(self, signature: Dispatchable[Any]) -> Job[Any]:
        """As `dispatch_signature`, from code without an event loop; blocks."""
        if not isinstance(signature, Signature) or signature.followed:
            return self.run_sync(self.composer.dispatch(signature))
        if signature.options_.connection is None:
            return self.run_sync(self._dispatcher.one(signature))
        return self._dispatcher.within_here(signature)

    @property
    def composer(self) -> Composer:
        """Makes one thing to dispatch of several. Raises `ConfigurationError` where no plugin for that is installed."""
        if self._extensions.composer is not None:
            return self._extensions.composer
        raise ConfigurationError(
            "chains, groups and what follows a job are dispatched by a plugin: pip install camora-workflows"
        )

    def _dispatchable(self, what: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Dispatchable[Any]:
        if isinstance(what, Dispatchable):
            if args or kwargs:
                raise DispatchError(f"{what!r} has its arguments already; give it none when it is dispatched")
            return what
        return self._signature(what, args, kwargs)

    def _scheduled(self, what: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Signature[Any]:
        if isinstance(what, Dispatchable) and not is_one_job(what):
            raise ConfigurationError(
                f"{what!r} is more than one job, and a schedule dispatches one at each of its moments: schedule a task "
                "that dispatches this"
            )
        return self._signature(what, args, kwargs)

    def _signature(self, what: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Signature[Any]:
        if isinstance(what, Signature):
            return what
        if isinstance(what, Task):
            return Signature(what, args, kwargs)
        if isinstance(what, str):
            task: Any = self.tasks.get(what) or NamedTask(check_name("task", what), self)
            return Signature(task, args, kwargs)
        kind = what if isinstance(what, type) else type(what)
        if not issubclass(kind, BaseTask):
            raise DispatchError(
                f"cannot dispatch {what!r}: give a task, a BaseTask object or class, a task's name, or a signature"
            )
        task = next((task for task in self.tasks if task.function is kind), None)
        task = task or NamedTask(default_name(kind), self)
        if what is kind:
            return Signature(task, args, kwargs)
        if args or kwargs:
            raise DispatchError(f"{kind.__name__}: give arguments to the class, or an object, not both")
        if kind.makes_fields:
            known = isinstance(task, Task)
            return Signature(task, (what,), {}) if known else Signature(task, (), self._binding.payload_of(what))
        fields = {field.alias: getattr(what, field.name) for field in attrs.fields(cast("Any", kind)) if field.init}
        return Signature(task, (), fields)

    async def run_now(self, signature: Signature[T]) -> T:
        """Run a signature here and now, through the whole chain, without a broker; retries are waited for.

        Returns the function's value, or raises what it raised at last.
        """
        from camora.run_now import run_now

        if not is_one_job(signature):
            raise DispatchError(f"{signature!r} is more than one job, and run_now runs one: dispatch it to a worker")
        return cast("T", await run_now(self._engine_parts(), self._dispatcher.build(signature), signature.task, self))

    # Schedules

    def schedule(
        self,
        key: str,
        what: Signature[Any] | AnyTask,
        trigger: Trigger,
        *,
        group: str = "default",
        catch_up: CatchUp = "one",
        overlap: Overlap = "allow",
    ) -> None:
        """Declare that a scheduler dispatches this signature at every moment of the trigger; does no I/O.

        `key` names the schedule for ever. Raises `ConfigurationError` for a key that is taken.
        """
        self._declared_schedules.add(
            key, self._scheduled(what, (), {}), trigger, group=group, catch_up=catch_up, overlap=overlap
        )

    def make_scheduler(self, *, groups: Iterable[str] | None = None) -> Scheduler:
        """A scheduler for the running loop, not yet started; any number may run. Raises `UnsupportedCapability`."""
        from camora.scheduler import Scheduler

        return Scheduler(
            self.schedules, groups=None if groups is None else tuple(groups), clock=self.clock, logger=self.logger
        )

    # Jobs and dead letters

    async def job(self, job_id: str) -> Job[Any]:
        """A job again from its id; does no I/O."""
        return Job(job_id, "", self._jobs)

    async def signal(self, job_id: str, name: str, payload: Any = None, *, keep: float | timedelta = KEPT) -> bool:
        """Send a job what it waits for, or will: see `wait_for_signal` of camora-workflows.

        Signals of one name arrive in the order of these calls' ends; none is lost, and the job may begin to wait later,
        within `keep` (seconds or timedelta) at least. True when the job waited and has been woken up; False when it
        runs, was not dispatched yet, has ended, or when this broker cannot wake a job: then it looks by itself.

        Raises `UnsupportedCapability` where neither broker nor result backend keeps a journal, `EncodeError`, and
        `BrokerUnavailable`, after which calling it again may send the signal twice.
        """
        return await self._posting.signal(job_id, name, payload, keep)

    def signal_sync(self, job_id: str, name: str, payload: Any = None, *, keep: float | timedelta = KEPT) -> bool:
        """`signal` for code without an event loop; blocks."""
        return self.run_sync(self._posting.signal(job_id, name, payload, keep))

    async def forget_finished(self, older_than: float | timedelta, *, only_successful: bool = False) -> int:
        """Delete the records of jobs that finished so long ago (seconds or a `timedelta`); returns how many.

        With `only_successful`, those that succeeded. Raises `ResultsDisabled`, or `UnsupportedCapability` where records
        go by their `ttl` alone.
        """
        return await self._jobs.forget_finished(seconds(older_than), only_successful=only_successful)

    def dead_letters(self, queue: str | None = None) -> AsyncIterator[DeadLetter]:
        """All dead letters, of one queue or of all, oldest first."""
        return self._letters.list(queue)

    async def dead_letter(self, job_id: str) -> DeadLetter | None:
        """One dead letter, whole; None when there is none of this id."""
        return await self._letters.get(job_id)

    async def requeue(self, job_id: str) -> bool:
        """Put a dead letter back into its queue as a first attempt; False when there is no such letter."""
        return await self._letters.requeue(job_id)

    async def purge_dead_letters(self, queue: str | None = None, *, ids: Sequence[str] | None = None) -> int:
        """Delete dead letters for good, of one queue or of all, or those of these jobs; returns how many."""
        return await self._letters.purge(queue, ids)

    # Working

    def _engine_parts(self) -> EngineParts:
        return EngineParts(
            catalog=self.catalog,
            tasks=self.tasks,
            binding=self._binding,
            injector=self.injector,
            result_codec=self.result_codec,
            middleware=self._links,
            retry_policy=self._retry_policy,
            pools=self._pools,
            queue_rates={queue.name: queue.rate_limit for queue in self.queues if queue.rate_limit is not None},
            clock=self.clock,
            largest_result=self.settings.max_result_size,
            headers=self._extensions.headers,
            reference=reference_of(self),
        )

    def chain(self) -> list[Link]:
        """The links around an execution, outermost first, with where each came from."""
        from camora.engine import Engine

        return list(Engine(self._engine_parts()).links)

    def make_worker(
        self,
        *,
        queues: Iterable[str | Queue] | None = None,
        threads: Mapping[str, int] | None = None,
        concurrency: int | None = None,
        settings: WorkerSettings | None = None,
    ) -> Worker:
        """A worker for the running loop, not yet started. `queues` default to all that tasks and the app name.

        `threads` gives a queue a lane of its own, with that many jobs at once; `settings` replaces what the environment
        says. Raises `ConfigurationError`.
        """
        from camora.worker.lanes import lanes
        from camora.worker.worker import Worker, WorkerParts

        if settings is None and self.worker_settings is not None:
            settings = self.worker_settings
            if concurrency is not None:
                settings = attrs.evolve(settings, concurrency=concurrency)
        settings = settings or WorkerSettings.from_environment(os.environ, concurrency=concurrency)
        names = None if queues is None else [self._declarations.name_of(queue, "a worker") for queue in queues]
        parts = WorkerParts(
            engine=self._engine_parts(),
            connections=self._connections,
            codec=self.codec,
            clock=self.clock,
            lanes=lanes(
                names,
                known=(*self.tasks.queues(), *(queue.name for queue in self.queues)),
                # A queue with a rate has a lane of its own, which waits without holding back the others.
                own={
                    q.name: q.concurrency or settings.concurrency for q in self.queues if q.concurrency or q.rate_limit
                },
                threads=threads or {},
                concurrency=settings.concurrency,
            ),
            settings=settings,
            largest=self.settings.max_message_size,
            result_ttl=self.settings.result_ttl,
            dispatch=self.dispatch,
            publish=self._dispatcher.publish,
            extensions=self._extensions,
            events=self.events,
            on_start=self._start_hooks,
            on_stop=self._stop_hooks,
            logger=self.logger,
            outbox=self.outbox,
        )
        return Worker(parts)

    async def start(self, *, burst: bool = False, **options: Any) -> None:
        """Run a worker in this loop until SIGTERM or SIGINT; options as `make_worker`."""
        async with self:
            await self.make_worker(**options).run(burst=burst)

    @asynccontextmanager
    async def worker(self, **options: Any) -> AsyncIterator[Worker]:
        """A worker inside an application's own loop: it works while the block runs, and is drained at its end."""
        worker = self.make_worker(**options)
        try:
            await worker.start()
            yield worker
            await worker.drain()
        finally:
            await worker.close()

    def run(self, processes: int | str = 1, threads: Mapping[str, int] | None = None, **options: Any) -> None:
        """Run workers in that many processes (`"auto"`: one per core), and block until they are stopped.

        Raises `ConfigurationError`; ends the program with the workers' exit code when they cannot start.
        """
        from camora.worker.supervisor import run_processes

        run_processes(self, processes=processes, threads=threads or {}, **self._in_words(options))

    def start_processes(
        self, processes: int | str = 1, threads: Mapping[str, int] | None = None, *, daemon: bool = True, **options: Any
    ) -> WorkerProcesses:
        """Start worker processes and return at once: `.stop()`, `.join()`. With `daemon` they end with this one."""
        from camora.worker.supervisor import start_processes

        told = self._in_words(options)
        return start_processes(self, processes=processes, threads=threads or {}, daemon=daemon, **told)

    def _in_words(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of processes, with queues by their names."""
        if options.get("queues") is None:
            return options
        names = [self._declarations.name_of_declared(queue, "run(queues=[…])") for queue in options["queues"]]
        return {**options, "queues": names}

    # Life

    @contextmanager
    def swapped(
        self,
        *,
        broker: Broker,
        results: ResultBackend | None,
        clock: Clock,
        ids: Callable[[], str],
        settings: AppSettings | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> Iterator[None]:
        """Inside the block, the app stands on other parts; for tests. Not while a worker of it runs.

        `middleware` is added to the app's own.
        """
        before = self.broker, self.results, self.clock, self._ids, self.settings, self._middleware
        self.broker, self.results, self.clock, self._ids = broker, results, clock, ids
        self.settings = settings or self.settings
        self._middleware = [*self._middleware, *(Link(item, "camora.testing") for item in middleware)]
        self._compose()
        try:
            yield
        finally:
            self.broker, self.results, self.clock, self._ids, self.settings, self._middleware = before
            self._compose()

    def override(self, kind: Any, replacement: Any) -> AbstractContextManager[None]:
        """Inside the block, this type is answered with `replacement` (an instance); for tests."""
        return self._override({kind: lambda: replacement})

    @contextmanager
    def _override(self, replacements: Mapping[Any, Callable[[], Any]]) -> Any:
        undo = self.injector.override(replacements)
        try:
            yield
        finally:
            undo()

    def run_sync(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run one of this app's coroutines from code without an event loop; blocks."""
        return self._portal.run(coroutine)

    async def close(self) -> None:
        """Let go of this loop's connections, and of the thread behind the `_sync` methods."""
        await self.events.close()
        await self._connections.close()
        await asyncio.to_thread(self.close_sync)

    def close_sync(self) -> None:
        """End the thread behind the `_sync` methods, and its connections."""
        self._portal.stop(self._connections.close())

    async def __aenter__(self) -> Self:
        await self._connections.get()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Camora {self.name!r} on {self.broker!r}, {len(self.tasks.by_name)} tasks>"


class ConfiguredDispatch:
    """An app seen with options; the app itself is unchanged."""

    def __init__(self, app: Camora, options: DispatchOptions) -> None:
        self._app = app
        self._options = options

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `Camora.dispatch`, with these options."""
        return await self._app.dispatch_signature(self._with_options(what, args, kwargs))

    def dispatch_sync(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `Camora.dispatch_sync`, with these options."""
        return self._app.dispatch_signature_sync(self._with_options(what, args, kwargs))

    def _with_options(self, what: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Dispatchable[Any]:
        found = self._app._dispatchable(what, args, kwargs)  # noqa: SLF001 -- one unit with the app
        if not isinstance(found, Signature):
            return self._of_the_whole(found)
        return found.with_options(found.options_.over(self._options))

    def _of_the_whole(self, found: Any) -> Dispatchable[Any]:
        """What was composed of several has an id of its own; all else is said of its members."""
        given = next((name for name in self._options.given() if name != "job_id"), None)
        if given is not None:
            raise ConfigurationError(
                f"{found!r} is more than one job, and {given!r} is said of each: give it to its signatures, "
                f"….s(…).options({given}=…); of the whole only job_id can be said"
            )
        job_id = self._options.job_id
        whole: Dispatchable[Any] = found if job_id is None else found.options(job_id=job_id)
        return whole


class _Decorator:
    """`@app.task(…)`: remembers options, and nothing of the functions it is applied to."""

    def __init__(self, app: Camora, options: Mapping[str, Any]) -> None:
        self._app = app
        self._options = dict(options)

    @overload
    def __call__(self, function: C, /) -> C: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, function: Any, /) -> Any:
        return self._app._register(function, self._options)  # noqa: SLF001 -- one unit with the app


class _FallbackDecorator:
    def __init__(self, app: Camora, queue: str, options: Mapping[str, Any]) -> None:
        self._app = app
        self._queue = queue
        self._options = dict(options)

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        options = {"name": f"fallback:{self._queue}", **self._options}
        return cast("Callable[P, R]", self._app._register(function, options, fallback=self._queue))  # noqa: SLF001
