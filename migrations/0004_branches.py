"""Jobs that continue from another job's checkpoint."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COLUMNS = ("parent_id", "parent_verb", "parent_step", "initial_id", "anew")


def upgrade() -> None:
    for name in COLUMNS:
        kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite") if name == "parent_step" else sa.Text()
        op.add_column("job", sa.Column(name, kind))
    op.create_index("ix_job_parent_id", "job", ["parent_id"])
    op.create_index("ix_job_initial_id", "job", ["initial_id"])
    op.create_index("ix_job_state_checkpoint_id", "job_state", ["checkpoint_id"])


def downgrade() -> None:
    op.drop_index("ix_job_state_checkpoint_id", "job_state")
    op.drop_index("ix_job_initial_id", "job")
    op.drop_index("ix_job_parent_id", "job")
    for name in reversed(COLUMNS):
        op.drop_column("job", name)
