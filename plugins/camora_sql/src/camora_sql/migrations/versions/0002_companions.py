"""Schedules, limits, and the directory of workers: tables beside the old ones, which stay as they are.

So processes that opened the database before this revision go on working beside newer ones.
"""

from __future__ import annotations

import sqlalchemy as sa

from camora_sql.migrations.tools import (
    BIG,
    BYTES,
    FLOAT,
    NAME,
    TEXT,
    create_index,
    create_table,
    drop_table,
    works_with,
)

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    create_table(
        "schedules",
        sa.Column("key", NAME, primary_key=True),
        sa.Column("family", NAME, nullable=False),
        sa.Column("planned", TEXT, nullable=False),
        sa.Column("task", TEXT, nullable=False),
        sa.Column("queue", NAME, nullable=False),
        sa.Column("message", BYTES, nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("app", TEXT, nullable=False),
        sa.Column("catch_up", sa.String(16), nullable=False),
        sa.Column("overlap", sa.String(16), nullable=False),
        sa.Column("paused", sa.Integer(), nullable=False),
        sa.Column("last", BIG, nullable=True),
        sa.Column("last_job", NAME, nullable=False),
        sa.Column("next", BIG, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("receipt", BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("lent_until", BIG, nullable=False, server_default=sa.text("0")),
    )
    create_index("schedules_next", "schedules", ["next"])
    create_table(
        "rates",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("per", FLOAT, nullable=False),
        sa.Column("grants", TEXT, nullable=False),
        sa.Column("until", BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    create_index("rates_until", "rates", ["until"])
    create_table(
        "slots",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("holder", NAME, primary_key=True),
        sa.Column("until", BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    create_index("slots_holder", "slots", ["holder"])
    create_index("slots_until", "slots", ["until"])
    create_table(
        "workers",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("info", TEXT, nullable=False),
        sa.Column("until", BIG, nullable=False),
    )
    create_table(
        "orders",
        sa.Column("seq", BIG, primary_key=True, autoincrement=True),
        sa.Column("worker", NAME, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
    )
    create_index("orders_worker", "orders", ["worker"])
    create_table(
        "inbox",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("until", BIG, nullable=False),
        sa.Column("value", BYTES, nullable=True),
    )
    create_index("inbox_until", "inbox", ["until"])
    works_with("0001")


def downgrade() -> None:
    """Drop them."""
    works_with("")
    drop_table("inbox")
    drop_table("orders")
    drop_table("workers")
    drop_table("slots")
    drop_table("rates")
    drop_table("schedules")
