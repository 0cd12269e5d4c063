"""The lease that a gap extended for a running job, and the needs of a job in the queue's index."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_QUEUE = "ix_job_state_queue"


def upgrade() -> None:
    # Nullable: during an upgrade, the release before extends leases without it.
    op.add_column("job_state", sa.Column("spared_until", sa.Double().with_variant(sa.REAL(), "sqlite")))
    # The queries for positions in the queue, and for a job that a slot can run, then read the index alone.
    op.drop_index(_QUEUE, "job_state")
    op.create_index(_QUEUE, "job_state", ["status", "rank", "job_id", "needs"])


def downgrade() -> None:
    op.drop_index(_QUEUE, "job_state")
    op.create_index(_QUEUE, "job_state", ["status", "rank", "job_id"])
    op.drop_column("job_state", "spared_until")
