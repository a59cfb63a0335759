"""The first schema.

Written out, not taken from `schema`: what a revision does never changes, and the schema will.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "camora_jobs",
        sa.Column("seq", _BIG, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(255), nullable=False, unique=True),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due", _BIG, nullable=False),
        sa.Column("lease_until", _BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("receipt", _BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("deliveries", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("cancel", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("worker", sa.String(255), nullable=False, server_default=sa.text("''")),
        sa.Column("expires", _BIG, nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("key_ttl", sa.Float(), nullable=False, server_default=sa.text("0")),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    _partial("camora_jobs_cancelled", ["receipt"], "cancel = 1")
    _partial("camora_jobs_leased", ["lease_until"], "state = 2")
    _partial("camora_jobs_ready", ["queue", sa.text("priority DESC"), "due"], "state = 0")
    _partial("camora_jobs_scheduled", ["due"], "state = 1")
    op.create_table(
        "camora_keys",
        sa.Column("key", sa.String(512), primary_key=True),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("until", _BIG, nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_index("camora_keys_until", "camora_keys", ["until"])
    op.create_table(
        "camora_done",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("until", _BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("camora_done_until", "camora_done", ["until"])
    op.create_table(
        "camora_dead_letters",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("died", _BIG, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("expires", _BIG, nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("key_ttl", sa.Float(), nullable=False),
        sa.Column("job_task", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_index("camora_dead_letters_queue", "camora_dead_letters", ["queue", "id"])
    op.create_table(
        "camora_results",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("final", sa.Integer(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("kept", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created", _BIG, nullable=False),
        sa.Column("started", _BIG, nullable=False),
        sa.Column("finished", _BIG, nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("ttl", sa.Float(), nullable=False),
        sa.Column("expires", _BIG, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("progress", sa.Text(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
    )
    op.create_index("camora_results_expires", "camora_results", ["expires"])
    op.create_table(
        "camora_queues",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("paused", sa.Integer(), nullable=False),
    )
    op.create_table(
        "camora_facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )


def _partial(name: str, columns: list[str | sa.TextClause], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "camora_jobs", columns, sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    """Drop them all."""
    op.drop_table("camora_facts")
    op.drop_table("camora_queues")
    op.drop_table("camora_results")
    op.drop_table("camora_dead_letters")
    op.drop_table("camora_done")
    op.drop_table("camora_keys")
    op.drop_table("camora_jobs")
