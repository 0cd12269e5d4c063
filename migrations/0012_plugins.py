"""The plug-ins that a job needs, and those that a worker has.

The release before runs on this schema while it is being replaced: it writes no rows of `job_plugin` and reports no
plug-ins, which is right, because it has none.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "job_plugin",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("plugin", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_plugin_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "plugin", name="pk_job_plugin"),
        sqlite_strict=True,
    )
    op.add_column("worker", sa.Column("plugins", sa.Text))


def downgrade() -> None:
    op.drop_column("worker", "plugins")
    op.drop_table("job_plugin")
