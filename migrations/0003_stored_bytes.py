"""How many bytes all files of a checkpoint take, for the limit of what an owner may store."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # It may be empty: the release before writes rows without it while it is being replaced.
    op.add_column("checkpoint", sa.Column("stored", sa.BigInteger().with_variant(sa.Integer(), "sqlite")))


def downgrade() -> None:
    op.drop_column("checkpoint", "stored")
