"""Which examples of its dataset a job trains, validates and tests on.

The release before runs on this schema while it is being replaced: it writes no rows of this table, and the split of its
jobs is then unknown.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "job_split",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("codes", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_split_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_split"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("job_split")
