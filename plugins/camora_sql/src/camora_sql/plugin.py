"""The plugin: what camora-sql offers. SQLAlchemy is imported only when somebody uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from camora.hookspecs import hookimpl
from camora.interfaces import Broker, Check, Command, ResultBackend, ScheduleStore
from camora.provider import MadeFrom, Provider

from camora_sql.settings import SqlSettings, in_folder

_SCHEMES = (
    "sqlite",
    "sqlite+pysqlite",
    "postgresql",
    "postgresql+asyncpg",
    "postgresql+psycopg",
    "postgres",
    "mysql",
    "mysql+asyncmy",
    "mariadb",
    "mariadb+asyncmy",
)
_HELP = "tables in a database: a durable SQLite file, or your PostgreSQL, MariaDB or MySQL"


def _broker(made: MadeFrom) -> Broker:
    from camora_sql.broker import SqlBroker

    return SqlBroker(in_folder(made.url or "", made.folder), made.settings)


def _results(made: MadeFrom) -> ResultBackend:
    from camora_sql.results import SqlResultBackend

    return SqlResultBackend(in_folder(made.url or "", made.folder), made.settings)


def _schedules(made: MadeFrom) -> ScheduleStore:
    from camora_sql.schedules import SqlScheduleStore
    from camora_sql.store import Store

    return SqlScheduleStore(Store(in_folder(made.url or "", made.folder), made.settings))


@hookimpl
def camora_brokers() -> Sequence[Provider[Broker]]:
    """The SQL broker."""
    return [Provider("sql", _broker, settings=SqlSettings, schemes=_SCHEMES, help=_HELP)]


@hookimpl
def camora_result_backends() -> Sequence[Provider[ResultBackend]]:
    """The SQL result backend."""
    return [Provider("sql", _results, settings=SqlSettings, schemes=_SCHEMES, help=_HELP)]


@hookimpl
def camora_schedule_stores() -> Sequence[Provider[ScheduleStore]]:
    """The SQL store of schedules."""
    return [Provider("sql", _schedules, settings=SqlSettings, schemes=_SCHEMES, help=_HELP)]


def sql(find_app: Callable[..., Any]) -> object:
    """`camora sql`."""
    from camora_sql.commands import build

    return build(find_app)


@hookimpl
def camora_commands() -> Sequence[Command]:
    """`camora sql migrate` and `camora sql status`."""
    return [Command(name="sql", help="The schema of SQL databases.", load=sql, finds_app=True)]


@hookimpl
def camora_checks() -> Sequence[Check]:
    """What `camora doctor` looks at."""
    from camora_sql.checks import checks

    return checks()
