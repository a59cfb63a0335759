"""The tables. What they look like in a database is decided here, and brought there by `migrations`.

Moments are milliseconds since the epoch, but for `lease_until`, and all moments of workers and limits, which are on the
lease clock of the dialect: a clock that nobody sets. `camora_jobs` holds what is to run, and nothing that has finished:
its size is the backlog.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "State",
    "dead_letters",
    "done",
    "facts",
    "jobs",
    "keys",
    "metadata",
    "orders",
    "queues",
    "rates",
    "results",
    "schedules",
    "slots",
    "version",
    "workers",
]

HEAD = "0002"
"""The newest revision in `migrations/versions`."""
VERSION_TABLE = "camora_alembic_version"

metadata = MetaData()

_Big = BigInteger().with_variant(Integer, "sqlite")


class State:
    """The values of `camora_jobs.state`."""

    READY = 0
    SCHEDULED = 1
    LEASED = 2


jobs = Table(
    "camora_jobs",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=True),
    Column("id", String(255), nullable=False, unique=True),
    Column("queue", String(255), nullable=False),
    Column("state", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    # When it was to run: the publication's own moment, where no other was asked for. Orders what is ready.
    Column("due", _Big, nullable=False),
    Column("lease_until", _Big, nullable=False, server_default=text("0")),
    # The fencing token of the delivery it is out on; 0 while it is not.
    Column("receipt", _Big, nullable=False, server_default=text("0")),
    Column("deliveries", Integer, nullable=False, server_default=text("0")),
    Column("cancel", Integer, nullable=False, server_default=text("0")),
    Column("worker", String(255), nullable=False, server_default=text("''")),
    Column("expires", _Big),
    Column("key", Text),
    Column("key_ttl", Float, nullable=False, server_default=text("0")),
    Column("task", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# One partial index for each state: ready, scheduled and leased rows do not slow each other down.
_ready, _scheduled, _leased, _cancelled = (
    text(f"state = {State.READY}"),
    text(f"state = {State.SCHEDULED}"),
    text(f"state = {State.LEASED}"),
    text("cancel = 1"),
)
Index(
    "camora_jobs_ready",
    jobs.c.queue,
    jobs.c.priority.desc(),
    jobs.c.due,
    sqlite_where=_ready,
)
Index("camora_jobs_scheduled", jobs.c.due, sqlite_where=_scheduled)
Index("camora_jobs_leased", jobs.c.lease_until, sqlite_where=_leased)
Index("camora_jobs_cancelled", jobs.c.receipt, sqlite_where=_cancelled)

keys = Table(
    "camora_keys",
    metadata,
    Column("key", String(512), primary_key=True),
    Column("job", String(255), nullable=False),
    # NULL while the job is unfinished, then the moment the key becomes free.
    Column("until", _Big),
    sqlite_with_rowid=False,
)
Index("camora_keys_until", keys.c.until)

# Ids of jobs that finished without a record which would remember them as long.
done = Table(
    "camora_done",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("until", _Big, nullable=False),
    sqlite_with_rowid=False,
)
Index("camora_done_until", done.c.until)

dead_letters = Table(
    "camora_dead_letters",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("queue", String(255), nullable=False),
    Column("task", Text, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("error", Text),
    Column("attempts", Integer, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("died", _Big, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("expires", _Big),
    Column("key", Text),
    Column("key_ttl", Float, nullable=False),
    # The task as it was published: `task` is what the letter says, which may be nothing.
    Column("job_task", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("camora_dead_letters_queue", dead_letters.c.queue, dead_letters.c.id)

results = Table(
    "camora_results",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("final", Integer, nullable=False),
    Column("task", Text, nullable=False),
    Column("queue", String(255), nullable=False),
    Column("kept", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created", _Big, nullable=False),
    Column("started", _Big, nullable=False),
    Column("finished", _Big, nullable=False),
    Column("worker", String(255), nullable=False),
    Column("ttl", Float, nullable=False),
    Column("expires", _Big, nullable=False),
    Column("error", Text),
    Column("progress", Text),
    Column("value", LargeBinary),
)
Index("camora_results_expires", results.c.expires)

# Queues of which something is to be remembered: now, that they are paused.
queues = Table(
    "camora_queues",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("paused", Integer, nullable=False),
)

# Schedules, and their loans: `receipt` is the fencing token of the one under way, 0 while there is none.
schedules = Table(
    "camora_schedules",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("family", String(255), nullable=False),
    # What makes the trigger again, as JSON.
    Column("planned", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("queue", String(255), nullable=False),
    Column("message", LargeBinary, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("app", Text, nullable=False),
    Column("catch_up", String(16), nullable=False),
    Column("overlap", String(16), nullable=False),
    Column("paused", Integer, nullable=False),
    Column("last", _Big),
    Column("last_job", String(255), nullable=False),
    Column("next", _Big),
    Column("version", Integer, nullable=False),
    Column("receipt", _Big, nullable=False, server_default=text("0")),
    Column("lent_until", _Big, nullable=False, server_default=text("0")),
)
Index("camora_schedules_next", schedules.c.next)

# The windows of rates: pairs of a bucket and its grants, as JSON. Nothing is in them any more at `until`.
rates = Table(
    "camora_rates",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("per", Float, nullable=False),
    Column("grants", Text, nullable=False),
    Column("until", _Big, nullable=False),
    sqlite_with_rowid=False,
)
Index("camora_rates_until", rates.c.until)

# Who holds a slot of a limit, and until when.
slots = Table(
    "camora_slots",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("holder", String(255), primary_key=True),
    Column("until", _Big, nullable=False),
    sqlite_with_rowid=False,
)
Index("camora_slots_holder", slots.c.holder)
Index("camora_slots_until", slots.c.until)

# Workers as they last reported, as JSON, each until its time is over; and what they are to be told.
workers = Table(
    "camora_workers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("info", Text, nullable=False),
    Column("until", _Big, nullable=False),
)
orders = Table(
    "camora_orders",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=True),
    Column("worker", String(255), nullable=False),
    Column("what", String(16), nullable=False),
)
Index("camora_orders_worker", orders.c.worker)

# Alembic's own, of a name of ours: the tables may stand in a database that others migrate, too.
version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)

# Facts about the database itself, such as the boot of the machine that its leases belong to.
facts = Table(
    "camora_facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
