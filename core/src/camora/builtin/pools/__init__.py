"""The four kinds of pool."""

from __future__ import annotations

from camora.errors import ConfigurationError
from camora.interfaces.pool import Pool, PoolSettings

__all__ = ["make_pool"]


def make_pool(kind: str, settings: PoolSettings | None = None) -> Pool:
    """A pool of this kind; each kind's module is imported when it is needed. Raises `ConfigurationError`."""
    settings = settings or PoolSettings(kind=kind)
    if settings.workers is not None and settings.workers < 1:
        raise ConfigurationError(f"pool of kind {kind!r}: workers = {settings.workers}: must be 1 or more")
    if settings.max_calls is not None and (kind != "process" or settings.max_calls < 1):
        raise ConfigurationError(
            f"pool of kind {kind!r}: max_calls = {settings.max_calls}: for process pools, and 1 or more"
        )
    if kind == "async":
        from camora.builtin.pools.async_pool import AsyncPool

        return AsyncPool(settings.workers)
    if kind == "sync":
        from camora.builtin.pools.sync_pool import SyncPool

        return SyncPool(settings.workers)
    if kind == "thread":
        from camora.builtin.pools.thread_pool import ThreadPool

        return ThreadPool(settings.workers)
    if kind == "process":
        from camora.builtin.pools.process_pool import ProcessPool

        return ProcessPool(settings.workers, settings.max_calls)
    raise ConfigurationError(f"pool kind {kind!r}: one of 'async', 'sync', 'thread', 'process'")
