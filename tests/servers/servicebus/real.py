"""Queues for tests in a real namespace: of Azure, or of an emulator of somebody else's.

`CAMORA_TEST_SERVICEBUS_URL` names it, with a key that has the right Manage. Queues are made under names that nobody
else has, and deleted at the end of the process; one that is killed leaves them there.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["GIVEN", "given", "make"]

GIVEN = "CAMORA_TEST_SERVICEBUS_URL"


def given() -> str:
    """The URL; empty where there is none."""
    return os.environ.get(GIVEN, "")


_made: list[tuple[str, list[str]]] = []


def make(url: str, queues: Sequence[str], lock_duration: float) -> None:
    """Make these queues, with the prefix of the URL. Real locks last 5 seconds at least."""
    if not _made:
        atexit.register(_delete_all)
    _made.append((url, list(queues)))
    # Whoever asks may be in an event loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, _make(url, queues, max(5.0, lock_duration))).result()


def _delete_all() -> None:
    """In another process: one that is ending can start no more threads."""
    path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "tests.servers.servicebus.real"]
    subprocess.run(command, input=json.dumps(_made).encode(), env={**os.environ, "PYTHONPATH": path}, check=True)


async def _make(url: str, queues: Sequence[str], lock_duration: float) -> None:
    from camora_servicebus import ServiceBusQueue
    from camora_servicebus.admin import Admin
    from camora_servicebus.applying import create_missing
    from camora_servicebus.store import Store
    from camora_servicebus.wanting import wanted_of_store

    store = Store.of_url(url)
    store.learn([ServiceBusQueue(name, lock_duration=lock_duration) for name in queues])
    async with Admin(store) as admin:
        await create_missing(admin, wanted_of_store(store, queues))


async def _delete(url: str, queues: Sequence[str]) -> None:
    from azure.core.exceptions import ResourceNotFoundError
    from camora_servicebus.admin import Admin
    from camora_servicebus.store import Store

    store = Store.of_url(url)
    async with Admin(store) as admin:
        for name in queues:
            entity = store.names.queue(name)
            try:
                await admin._call(f"delete {entity}", lambda client, entity=entity: client.delete_queue(entity))
            except ResourceNotFoundError:
                continue


if __name__ == "__main__":
    for _url, _queues in json.load(sys.stdin):
        asyncio.run(_delete(_url, _queues))
