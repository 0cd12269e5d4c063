"""The size in bytes of all files of a checkpoint, for the storage quota of an owner."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # Nullable: during an upgrade, the release before writes rows without it.
    op.add_column("checkpoint", sa.Column("stored", sa.BigInteger().with_variant(sa.Integer(), "sqlite")))


def downgrade() -> None:
    op.drop_column("checkpoint", "stored")
