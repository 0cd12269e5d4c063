"""Pinned checkpoints, which retention keeps."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # Both are nullable: during an upgrade, the release before writes rows without them.
    op.add_column("checkpoint", sa.Column("pinned_at", sa.Double().with_variant(sa.REAL(), "sqlite")))
    op.add_column("checkpoint", sa.Column("superseded", sa.Integer))


def downgrade() -> None:
    op.drop_column("checkpoint", "superseded")
    op.drop_column("checkpoint", "pinned_at")
