"""The tables. What they look like in a database is decided here, and brought there by `migrations`.

Moments are milliseconds since the epoch, but for `lease_until`, and all moments of workers and limits, which are on the
lease clock of the dialect: a clock that nobody sets. The table of jobs holds what is to run, and nothing that has
finished: its size is the backlog.
"""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    Double,
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

from camora_sql.settings import PREFIX

__all__ = ["HEAD", "RECORD_COLUMNS", "SCHEDULE_COLUMNS", "WORKS_WITH", "State", "Tables", "tables_named"]

HEAD = "0003"
"""The newest revision in `migrations/versions`."""
WORKS_WITH = ("works_with", "0001")
"""A fact that stands in the database: the oldest revision whose code can work with its tables as they are now."""

_Big = BigInteger().with_variant(Integer, "sqlite")
# Ids and names are no words of a language: compared and sorted by code point, whatever the database's language.
_Name = String(255).with_variant(String(255, collation="C"), "postgresql")
_Key = String(512).with_variant(String(512, collation="C"), "postgresql")
# What has no length has no limit; MySQL takes the smallest type that fits the length.
_LONGEST = 2**32 - 1
_Text = Text().with_variant(Text(_LONGEST), "mysql", "mariadb")
_Bytes = LargeBinary().with_variant(LargeBinary(_LONGEST), "mysql", "mariadb")
_Float = Float().with_variant(Double(), "mysql", "mariadb")
_OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_0900_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}


class State:
    """The values of `state` in the table of jobs."""

    READY = 0
    SCHEDULED = 1
    LEASED = 2


class Tables:
    """All tables, under names that begin with `prefix`; in a schema, or where the connection looks by itself.

    `partial`: whether the database has indexes of some rows alone, and in descending order.
    """

    def __init__(self, prefix: str = PREFIX, schema: str | None = None, *, partial: bool = True) -> None:
        self.prefix = prefix
        self.schema = schema
        self.partial = partial
        # Only where they count: SQLAlchemy imports a dialect to look at its options. Code points again, and a space at
        # the end of a name counts.
        self.options: dict[str, Any] = {} if partial else _OPTIONS
        self.metadata = MetaData(schema=schema)
        # Alembic's own, of a name of ours: the tables may stand in a database that others migrate, too.
        self.version = Table(
            f"{prefix}alembic_version",
            MetaData(schema=schema),
            Column("version_num", String(32), nullable=False),
            PrimaryKeyConstraint("version_num", name=f"{prefix}alembic_version_pkc"),
            **self.options,
        )
        self._add_jobs()
        self._add_keys()
        self._add_letters()
        self._add_results()
        self._add_schedules()
        self._add_limits()
        self._add_workers()
        self._add_notes()
        self._add_inbox()
        self._add_workflows()
        self._add_journals()

    def _table(self, name: str, *columns: Column[Any], **options: Any) -> Table:
        return Table(f"{self.prefix}{name}", self.metadata, *columns, **self.options, **options)

    def _index(self, name: str, *columns: Any, where: str | None = None, unique: bool = False) -> None:
        condition = None if where is None else text(where)
        Index(f"{self.prefix}{name}", *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)

    def _add_jobs(self) -> None:
        self.jobs = self._table(
            "jobs",
            Column("seq", _Big, primary_key=True, autoincrement=True),
            Column("id", _Name, nullable=False, unique=True),
            Column("queue", _Name, nullable=False),
            Column("state", Integer, nullable=False),
            Column("priority", Integer, nullable=False),
            # When it was to run: the publication's own moment, where no other was asked for. Orders what is ready.
            Column("due", _Big, nullable=False),
            Column("lease_until", _Big, nullable=False, server_default=text("0")),
            # The fencing token of the delivery it is out on; 0 while it is not.
            Column("receipt", _Big, nullable=False, server_default=text("0")),
            Column("deliveries", Integer, nullable=False, server_default=text("0")),
            Column("cancel", Integer, nullable=False, server_default=text("0")),
            Column("worker", _Name, nullable=False, server_default=text("''")),
            Column("expires", _Big),
            Column("key", _Text),
            Column("key_ttl", _Float, nullable=False, server_default=text("0")),
            Column("task", _Text, nullable=False),
            Column("body", _Bytes, nullable=False),
        )
        if not self.partial:
            self._index_all_jobs()
            return
        # One partial index for each state: ready, scheduled and leased rows do not slow each other down.
        columns = self.jobs.c
        urgent = (columns.priority.desc(), columns.due, columns.seq)
        self._index("jobs_ready", columns.queue, *urgent, where=f"state = {State.READY}")
        self._index("jobs_scheduled", columns.due, where=f"state = {State.SCHEDULED}")
        self._index("jobs_leased", columns.lease_until, where=f"state = {State.LEASED}")
        self._index("jobs_cancelled", columns.receipt, where="cancel = 1")

    def _index_all_jobs(self) -> None:
        # What is most urgent comes first in an index that only ascends.
        self.jobs.append_column(Column("urgency", Integer, Computed("-priority", persisted=True)))
        columns = self.jobs.c
        urgent = (columns.urgency, columns.due, columns.seq)
        self._index("jobs_ready", columns.queue, columns.state, *urgent)
        self._index("jobs_scheduled", columns.state, columns.due)
        # The rest is there to be read from the index alone.
        self._index("jobs_leased", columns.state, columns.lease_until, columns.cancel, columns.receipt)

    def _add_keys(self) -> None:
        self.keys = self._table(
            "keys",
            Column("key", _Key, primary_key=True),
            Column("job", _Name, nullable=False),
            # NULL while the job is unfinished, then the moment the key becomes free.
            Column("until", _Big),
            sqlite_with_rowid=False,
        )
        self._index("keys_until", self.keys.c.until)
        # Ids of jobs that finished without a record which would remember them as long.
        self.done = self._table(
            "done",
            Column("id", _Name, primary_key=True),
            Column("until", _Big, nullable=False),
            sqlite_with_rowid=False,
        )
        self._index("done_until", self.done.c.until)

    def _add_letters(self) -> None:
        self.dead_letters = self._table(
            "dead_letters",
            Column("id", _Name, primary_key=True),
            Column("queue", _Name, nullable=False),
            Column("task", _Text, nullable=False),
            Column("reason", String(64), nullable=False),
            Column("error", _Text),
            Column("attempts", Integer, nullable=False),
            Column("deliveries", Integer, nullable=False),
            Column("died", _Big, nullable=False),
            Column("priority", Integer, nullable=False),
            Column("expires", _Big),
            Column("key", _Text),
            Column("key_ttl", _Float, nullable=False),
            # The task as it was published: `task` is what the letter says, which may be nothing.
            Column("job_task", _Text, nullable=False),
            Column("body", _Bytes, nullable=False),
        )
        self._index("dead_letters_queue", self.dead_letters.c.queue, self.dead_letters.c.id)

    def _add_results(self) -> None:
        self.results = self._table(
            "results",
            Column("id", _Name, primary_key=True),
            Column("status", String(16), nullable=False),
            Column("final", Integer, nullable=False),
            Column("task", _Text, nullable=False),
            Column("queue", _Name, nullable=False),
            Column("kept", Integer, nullable=False),
            Column("attempts", Integer, nullable=False),
            Column("created", _Big, nullable=False),
            Column("started", _Big, nullable=False),
            Column("finished", _Big, nullable=False),
            Column("worker", _Name, nullable=False),
            Column("ttl", _Float, nullable=False),
            Column("expires", _Big, nullable=False),
            Column("error", _Text),
            Column("progress", _Text),
            Column("value", _Bytes),
        )
        self._index("results_expires", self.results.c.expires)

    def _add_schedules(self) -> None:
        # Schedules, and their loans: `receipt` is the fencing token of the one under way, 0 while there is none.
        self.schedules = self._table(
            "schedules",
            Column("key", _Name, primary_key=True),
            Column("family", _Name, nullable=False),
            # What makes the trigger again, as JSON.
            Column("planned", _Text, nullable=False),
            Column("task", _Text, nullable=False),
            Column("queue", _Name, nullable=False),
            Column("message", _Bytes, nullable=False),
            Column("origin", String(16), nullable=False),
            Column("app", _Text, nullable=False),
            Column("catch_up", String(16), nullable=False),
            Column("overlap", String(16), nullable=False),
            Column("paused", Integer, nullable=False),
            Column("last", _Big),
            Column("last_job", _Name, nullable=False),
            Column("next", _Big),
            Column("version", Integer, nullable=False),
            Column("receipt", _Big, nullable=False, server_default=text("0")),
            Column("lent_until", _Big, nullable=False, server_default=text("0")),
        )
        self._index("schedules_next", self.schedules.c.next)

    def _add_limits(self) -> None:
        # The windows of rates: pairs of a bucket and its grants, as JSON. Nothing is in them any more at `until`.
        self.rates = self._table(
            "rates",
            Column("name", _Name, primary_key=True),
            Column("per", _Float, nullable=False),
            Column("grants", _Text, nullable=False),
            Column("until", _Big, nullable=False),
            sqlite_with_rowid=False,
        )
        self._index("rates_until", self.rates.c.until)
        # Who holds a slot of a limit, and until when.
        self.slots = self._table(
            "slots",
            Column("name", _Name, primary_key=True),
            Column("holder", _Name, primary_key=True),
            Column("until", _Big, nullable=False),
            sqlite_with_rowid=False,
        )
        self._index("slots_holder", self.slots.c.holder)
        self._index("slots_until", self.slots.c.until)

    def _add_workers(self) -> None:
        # Workers as they last reported, as JSON, each until its time is over; and what they are to be told.
        self.workers = self._table(
            "workers",
            Column("name", _Name, primary_key=True),
            Column("info", _Text, nullable=False),
            Column("until", _Big, nullable=False),
        )
        self.orders = self._table(
            "orders",
            Column("seq", _Big, primary_key=True, autoincrement=True),
            Column("worker", _Name, nullable=False),
            Column("what", String(16), nullable=False),
        )
        self._index("orders_worker", self.orders.c.worker)

    def _add_notes(self) -> None:
        # Queues of which something is to be remembered: now, that they are paused.
        self.queues = self._table(
            "queues",
            Column("name", _Name, primary_key=True),
            Column("paused", Integer, nullable=False),
        )
        # Facts about the database itself, such as the boot of the machine that its leases belong to.
        self.facts = self._table(
            "facts",
            Column("name", String(64), primary_key=True),
            Column("value", _Text, nullable=False),
        )

    def _add_inbox(self) -> None:
        # Jobs whose work was committed together with this mark, and what they came to, encoded.
        self.inbox = self._table(
            "inbox",
            Column("id", _Name, primary_key=True),
            Column("until", _Big, nullable=False),
            Column("value", _Bytes),
        )
        self._index("inbox_until", self.inbox.c.until)

    def _add_workflows(self) -> None:
        # Workflows as wholes. One that was deleted has no id any more, and goes in steps, with all that is in it.
        self.workflows = self._table(
            "workflows",
            Column("seq", _Big, primary_key=True, autoincrement=True),
            Column("id", _Name),
            Column("name", _Text, nullable=False),
            Column("state", String(16), nullable=False),
            Column("status", String(64), nullable=False),
            Column("created", _Big, nullable=False),
            Column("changed", _Big, nullable=False),
            Column("finished", _Big, nullable=False),
            # NULL until it has finished, then when it may be deleted.
            Column("until", _Big),
            Column("nodes", Integer, nullable=False),
            Column("open", Integer, nullable=False),
            Column("plan", _Bytes, nullable=False),
        )
        columns = self.workflows.c
        self._index("workflows_id", columns.id, unique=True)
        self._index("workflows_state", columns.state, columns.id)
        self._index("workflows_until", columns.until)
        # Nodes are known by one number: that of their workflow, and their index in it (see `numbering`). What is large
        # comes last, where nobody reads it on the way to something else.
        self.nodes = self._table(
            "workflow_nodes",
            Column("node", _Big, primary_key=True, autoincrement=False),
            Column("gate", _Big),
            Column("run", Integer, nullable=False),
            Column("status", String(64), nullable=False),
            # Indexes, as JSON.
            Column("feeds", _Text, nullable=False),
            Column("spec", _Bytes, nullable=False),
            Column("outcome", _Bytes),
        )
        self._index("workflow_nodes_gate", self.nodes.c.gate, self.nodes.c.node, where="gate IS NOT NULL")
        # Which nodes feed a node; and which of those it waits for: the row goes when the source has ended.
        self.feeds = self._table(
            "workflow_feeds",
            Column("target", _Big, primary_key=True, autoincrement=False),
            Column("source", _Big, primary_key=True, autoincrement=False),
            sqlite_with_rowid=False,
        )
        self.waits = self._table(
            "workflow_waits",
            Column("source", _Big, primary_key=True, autoincrement=False),
            Column("target", _Big, primary_key=True, autoincrement=False),
            sqlite_with_rowid=False,
        )
        self._index("workflow_waits_target", self.waits.c.target, self.waits.c.source)
        # How far the nodes behind a gate were handed on.
        self.gates = self._table(
            "workflow_gates",
            Column("gate", _Big, primary_key=True, autoincrement=False),
            Column("passed", Integer, nullable=False),
        )

    def _add_journals(self) -> None:
        # What jobs have done so far, and who may say so: `token` is the greatest that was used.
        self.journals = self._table(
            "journals",
            Column("seq", _Big, primary_key=True, autoincrement=True),
            Column("id", _Name, nullable=False),
            Column("token", _Big),
            Column("until", _Big, nullable=False),
        )
        self._index("journals_id", self.journals.c.id, unique=True)
        self._index("journals_until", self.journals.c.until)
        self.entries = self._table(
            "journal_entries",
            Column("journal", _Big, primary_key=True, autoincrement=False),
            Column("name", _Key, primary_key=True),
            # By what a repeated post is known.
            Column("post", _Name),
            Column("value", _Bytes, nullable=False),
        )
        self._index("journal_entries_post", self.entries.c.journal, self.entries.c.post, where="post IS NOT NULL")


@functools.lru_cache(maxsize=16)
def tables_named(prefix: str, schema: str | None = None, *, partial: bool = True) -> Tables:
    """Those tables, described once for all who use them: that takes longer than all else a store does to begin."""
    return Tables(prefix, schema, partial=partial)


_PLAIN = tables_named(PREFIX)
RECORD_COLUMNS = tuple(_PLAIN.results.c.keys())
"""The columns of a record, in their order."""
SCHEDULE_COLUMNS = tuple(c.name for c in _PLAIN.schedules.c if c.name not in ("receipt", "lent_until"))
"""The columns of a schedule without its loan, in their order."""
