"""The rigs by their names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.amqp.faults import rig as rabbitmq
from tests.faults.rig import Rig
from tests.redis.faults import rig as redis
from tests.servicebus.faults import rig as servicebus
from tests.sql.faults import mariadb
from tests.sql.faults import rig as postgresql

__all__ = ["RIGS"]


@contextlib.contextmanager
def _psycopg(folder: Path) -> Iterator[Rig]:
    with postgresql.rigged(folder) as made:
        made.driver = "psycopg"
        yield made


RIGS: dict[str, Callable[[Path], AbstractContextManager[Rig]]] = {
    "redis": redis.rigged,
    "postgresql": postgresql.rigged,
    "psycopg": _psycopg,
    "mariadb": mariadb.rigged,
    "rabbitmq": rabbitmq.rigged,
    "servicebus": servicebus.rigged,
}
