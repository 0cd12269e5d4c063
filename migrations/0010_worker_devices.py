"""The devices of a worker's slots, and which slots are out of service."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # Null in the rows of workers of the release before, which continue to report without it.
    op.add_column("worker", sa.Column("devices", sa.Text))


def downgrade() -> None:
    op.drop_column("worker", "devices")
