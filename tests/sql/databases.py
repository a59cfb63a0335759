"""Databases of a test's own, in the PostgreSQL that all tests share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.fixtures import shared_postgres

_numbers = itertools.count()


@contextmanager
def new_database() -> Iterator[str]:
    """Its name; it is dropped at the end, whoever is connected."""
    server = shared_postgres()
    name = f"own_{os.getpid()}_{next(_numbers)}"
    server.sql(f"CREATE DATABASE {name}")
    yield name
    server.sql(f"DROP DATABASE {name} WITH (FORCE)")
