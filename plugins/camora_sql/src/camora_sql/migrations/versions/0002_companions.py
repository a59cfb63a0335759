"""Schedules, limits, and the directory of workers: tables beside the old ones, which stay as they are.

So processes that opened the database before this revision go on working beside newer ones.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "camora_schedules",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("family", sa.String(255), nullable=False),
        sa.Column("planned", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("catch_up", sa.String(16), nullable=False),
        sa.Column("overlap", sa.String(16), nullable=False),
        sa.Column("paused", sa.Integer(), nullable=False),
        sa.Column("last", _BIG, nullable=True),
        sa.Column("last_job", sa.String(255), nullable=False),
        sa.Column("next", _BIG, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("receipt", _BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("lent_until", _BIG, nullable=False, server_default=sa.text("0")),
    )
    op.create_index("camora_schedules_next", "camora_schedules", ["next"])
    op.create_table(
        "camora_rates",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("per", sa.Float(), nullable=False),
        sa.Column("grants", sa.Text(), nullable=False),
        sa.Column("until", _BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("camora_rates_until", "camora_rates", ["until"])
    op.create_table(
        "camora_slots",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("holder", sa.String(255), primary_key=True),
        sa.Column("until", _BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("camora_slots_holder", "camora_slots", ["holder"])
    op.create_index("camora_slots_until", "camora_slots", ["until"])
    op.create_table(
        "camora_workers",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("info", sa.Text(), nullable=False),
        sa.Column("until", _BIG, nullable=False),
    )
    op.create_table(
        "camora_orders",
        sa.Column("seq", _BIG, primary_key=True, autoincrement=True),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
    )
    op.create_index("camora_orders_worker", "camora_orders", ["worker"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("camora_orders")
    op.drop_table("camora_workers")
    op.drop_table("camora_slots")
    op.drop_table("camora_rates")
    op.drop_table("camora_schedules")
