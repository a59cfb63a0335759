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
        from camora.builtin.pools.coroutine import CoroutinePool

        return CoroutinePool(settings)
    if kind == "sync":
        from camora.builtin.pools.inline import InlinePool

        return InlinePool(settings)
    if kind == "thread":
        from camora.builtin.pools.thread import ThreadPool

        return ThreadPool(settings)
    if kind == "process":
        from camora.builtin.pools.process import ProcessPool

        return ProcessPool(settings)
    raise ConfigurationError(f"pool kind {kind!r}: one of 'async', 'sync', 'thread', 'process'")
