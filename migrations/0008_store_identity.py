"""The object store that belongs to this database, and when a checkpoint's objects were found missing.

All of it is added, so the release before keeps running: it writes no row of the new tables and leaves the column empty.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

NUMBER = sa.Double().with_variant(sa.REAL(), "sqlite")
LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "store_identity",
        sa.Column("one", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.CheckConstraint("one = 1", name=op.f("ck_store_identity_one")),
        sa.PrimaryKeyConstraint("one", name="pk_store_identity"),
        sqlite_strict=True,
    )
    op.add_column("checkpoint", sa.Column("missing_at", NUMBER))
    op.create_table(
        "metric_chunk_aside",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
        sa.Column("after_step", LONG, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("first_step", LONG, nullable=False),
        sa.Column("last_step", LONG, nullable=False),
        sa.Column("points", sa.Integer, nullable=False),
        sa.Column("steps", sa.LargeBinary, nullable=False),
        sa.Column("values", sa.LargeBinary, nullable=False),
        sa.Column("times", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "series", "after_step", "number", name="pk_metric_chunk_aside"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_metric_chunk_aside_job_id", ondelete="CASCADE"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("metric_chunk_aside")
    op.drop_column("checkpoint", "missing_at")
    op.drop_table("store_identity")
