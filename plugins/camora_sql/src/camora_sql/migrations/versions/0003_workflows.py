"""Workflows, and the journals of jobs that are done in steps: tables beside the old ones, which stay as they are.

So processes that opened the database before this revision go on working beside newer ones.
"""

from __future__ import annotations

import sqlalchemy as sa

from camora_sql.migrations.tools import (
    BIG,
    BYTES,
    KEY,
    NAME,
    TEXT,
    create_index,
    create_table,
    drop_table,
    works_with,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    create_table(
        "workflows",
        sa.Column("seq", BIG, primary_key=True, autoincrement=True),
        sa.Column("id", NAME, nullable=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("created", BIG, nullable=False),
        sa.Column("changed", BIG, nullable=False),
        sa.Column("finished", BIG, nullable=False),
        sa.Column("until", BIG, nullable=True),
        sa.Column("nodes", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("plan", BYTES, nullable=False),
    )
    create_index("workflows_id", "workflows", ["id"], unique=True)
    create_index("workflows_state", "workflows", ["state", "id"])
    create_index("workflows_until", "workflows", ["until"])
    create_table(
        "workflow_nodes",
        sa.Column("node", BIG, primary_key=True, autoincrement=False),
        sa.Column("gate", BIG, nullable=True),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("feeds", TEXT, nullable=False),
        sa.Column("spec", BYTES, nullable=False),
        sa.Column("outcome", BYTES, nullable=True),
    )
    create_index("workflow_nodes_gate", "workflow_nodes", ["gate", "node"], where="gate IS NOT NULL")
    create_table(
        "workflow_feeds",
        sa.Column("target", BIG, primary_key=True, autoincrement=False),
        sa.Column("source", BIG, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    create_table(
        "workflow_waits",
        sa.Column("source", BIG, primary_key=True, autoincrement=False),
        sa.Column("target", BIG, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    create_index("workflow_waits_target", "workflow_waits", ["target", "source"])
    create_table(
        "workflow_gates",
        sa.Column("gate", BIG, primary_key=True, autoincrement=False),
        sa.Column("passed", sa.Integer(), nullable=False),
    )
    create_table(
        "journals",
        sa.Column("seq", BIG, primary_key=True, autoincrement=True),
        sa.Column("id", NAME, nullable=False),
        sa.Column("token", BIG, nullable=True),
        sa.Column("until", BIG, nullable=False),
    )
    create_index("journals_id", "journals", ["id"], unique=True)
    create_index("journals_until", "journals", ["until"])
    create_table(
        "journal_entries",
        sa.Column("journal", BIG, primary_key=True, autoincrement=False),
        sa.Column("name", KEY, primary_key=True),
        sa.Column("post", NAME, nullable=True),
        sa.Column("value", BYTES, nullable=False),
    )
    create_index("journal_entries_post", "journal_entries", ["journal", "post"], where="post IS NOT NULL")
    works_with("0001")


def downgrade() -> None:
    """Drop them."""
    drop_table("journal_entries")
    drop_table("journals")
    drop_table("workflow_gates")
    drop_table("workflow_waits")
    drop_table("workflow_feeds")
    drop_table("workflow_nodes")
    drop_table("workflows")
    works_with("0001")
