"""The first schema.

Written out, not taken from `schema`: what a revision does never changes, and the schema will.
"""

from __future__ import annotations

import sqlalchemy as sa

from camora_sql.migrations.tools import (
    BIG,
    BYTES,
    FLOAT,
    KEY,
    NAME,
    TEXT,
    create_functions,
    create_index,
    create_table,
    drop_functions,
    drop_table,
    has_partial_indexes,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    urgency = sa.Column("urgency", sa.Integer(), sa.Computed("-priority", persisted=True))
    create_table(
        "jobs",
        sa.Column("seq", BIG, primary_key=True, autoincrement=True),
        sa.Column("id", NAME, nullable=False, unique=True),
        sa.Column("queue", NAME, nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due", BIG, nullable=False),
        sa.Column("lease_until", BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("receipt", BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("deliveries", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("cancel", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("worker", NAME, nullable=False, server_default=sa.text("''")),
        sa.Column("expires", BIG, nullable=True),
        sa.Column("key", TEXT, nullable=True),
        sa.Column("key_ttl", FLOAT, nullable=False, server_default=sa.text("0")),
        sa.Column("task", TEXT, nullable=False),
        sa.Column("body", BYTES, nullable=False),
        *(() if has_partial_indexes() else (urgency,)),
    )
    if has_partial_indexes():
        create_index("jobs_cancelled", "jobs", ["receipt"], where="cancel = 1")
        create_index("jobs_leased", "jobs", ["lease_until"], where="state = 2")
        create_index("jobs_ready", "jobs", ["queue", sa.text("priority DESC"), "due", "seq"], where="state = 0")
        create_index("jobs_scheduled", "jobs", ["due"], where="state = 1")
    else:
        create_index("jobs_leased", "jobs", ["state", "lease_until", "cancel", "receipt"])
        create_index("jobs_ready", "jobs", ["queue", "state", "urgency", "due", "seq"])
        create_index("jobs_scheduled", "jobs", ["state", "due"])
    create_table(
        "keys",
        sa.Column("key", KEY, primary_key=True),
        sa.Column("job", NAME, nullable=False),
        sa.Column("until", BIG, nullable=True),
        sqlite_with_rowid=False,
    )
    create_index("keys_until", "keys", ["until"])
    create_table(
        "done",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("until", BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    create_index("done_until", "done", ["until"])
    create_table(
        "dead_letters",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("queue", NAME, nullable=False),
        sa.Column("task", TEXT, nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("died", BIG, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("expires", BIG, nullable=True),
        sa.Column("key", TEXT, nullable=True),
        sa.Column("key_ttl", FLOAT, nullable=False),
        sa.Column("job_task", TEXT, nullable=False),
        sa.Column("body", BYTES, nullable=False),
    )
    create_index("dead_letters_queue", "dead_letters", ["queue", "id"])
    create_table(
        "results",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("final", sa.Integer(), nullable=False),
        sa.Column("task", TEXT, nullable=False),
        sa.Column("queue", NAME, nullable=False),
        sa.Column("kept", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created", BIG, nullable=False),
        sa.Column("started", BIG, nullable=False),
        sa.Column("finished", BIG, nullable=False),
        sa.Column("worker", NAME, nullable=False),
        sa.Column("ttl", FLOAT, nullable=False),
        sa.Column("expires", BIG, nullable=False),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("progress", TEXT, nullable=True),
        sa.Column("value", BYTES, nullable=True),
    )
    create_index("results_expires", "results", ["expires"])
    create_table(
        "queues",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("paused", sa.Integer(), nullable=False),
    )
    create_table(
        "facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", TEXT, nullable=False),
    )
    create_functions("publish_1", "publish_one_1", "claim_1", "claim_from_1", "extend_1", "settle_1")


def downgrade() -> None:
    """Drop them all."""
    drop_functions("settle_1", "extend_1", "claim_from_1", "claim_1", "publish_one_1", "publish_1")
    drop_table("facts")
    drop_table("queues")
    drop_table("results")
    drop_table("dead_letters")
    drop_table("done")
    drop_table("keys")
    drop_table("jobs")
