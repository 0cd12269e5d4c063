"""The oldest generation of releases that may run on this database.

A later migration that the releases before it cannot live with raises the number, in the same transaction as its change:
`op.execute("UPDATE generation SET oldest = 2")`, with GENERATION = 2 in core/db/migrate.py.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "generation",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("oldest", sa.Integer, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_generation_one")),
        sa.PrimaryKeyConstraint("id", name="pk_generation"),
        sqlite_strict=True,
    )
    op.execute("INSERT INTO generation (id, oldest) VALUES (1, 1)")


def downgrade() -> None:
    op.drop_table("generation")
