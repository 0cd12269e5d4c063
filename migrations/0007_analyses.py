"""The inputs of analyses."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "analysis_input",
        sa.Column("analysis_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.Text()),
        sa.Column("step", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("checkpoint_kind", sa.Text()),
        sa.PrimaryKeyConstraint("analysis_id", "position", name="pk_analysis_input"),
        sa.ForeignKeyConstraint(["analysis_id"], ["job.id"], name="fk_analysis_input_analysis_id", ondelete="CASCADE"),
        sqlite_strict=True,
    )
    op.create_index("ix_analysis_input_job_id", "analysis_input", ["job_id"])
    op.create_index("ix_analysis_input_checkpoint_id", "analysis_input", ["checkpoint_id"])


def downgrade() -> None:
    op.drop_index("ix_analysis_input_checkpoint_id", "analysis_input")
    op.drop_index("ix_analysis_input_job_id", "analysis_input")
    op.drop_table("analysis_input")
