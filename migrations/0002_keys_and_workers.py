"""API keys, workers, labels to search jobs by, later edits by owners, and limits for the claim."""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def number() -> TypeEngine[float]:
    return sa.Double().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    _keys()
    _workers()
    _labels()
    op.add_column("job", sa.Column("edits", sa.Text))
    # Both are nullable: during an upgrade, the release before writes rows without them.
    op.add_column("job_state", sa.Column("owner", sa.Text))
    op.add_column("job_state", sa.Column("most_running", sa.Integer))
    op.execute("UPDATE job_state SET owner = (SELECT job.owner FROM job WHERE job.id = job_state.job_id)")
    op.create_index("ix_job_state_owner_status", "job_state", ["owner", "status"])


def downgrade() -> None:
    op.drop_index("ix_job_state_owner_status", "job_state")
    op.drop_column("job_state", "most_running")
    op.drop_column("job_state", "owner")
    op.drop_column("job", "edits")
    for table in ("job_label", "worker", "api_key"):
        op.drop_table(table)


def _keys() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("created_at", number(), nullable=False),
        sa.Column("expires_at", number()),
        sa.Column("revoked_at", number()),
        sa.Column("last_used_at", number()),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
        sqlite_strict=True,
    )
    op.create_index("ix_api_key_owner_id", "api_key", ["owner", "id"])


def _workers() -> None:
    op.create_table(
        "worker",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("slots", sa.Text, nullable=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("started_at", number(), nullable=False),
        sa.Column("seen_at", number(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_worker"),
        sqlite_strict=True,
    )


def _labels() -> None:
    label = op.create_table(
        "job_label",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_label_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "key", name="pk_job_label"),
        sqlite_strict=True,
    )
    op.create_index("ix_job_label_key_value", "job_label", ["key", "value", "job_id"])
    connection = op.get_bind()
    job = sa.table("job", sa.column("id"), sa.column("spec"))
    rows: list[dict[str, Any]] = []
    for job_id, spec in connection.execute(sa.select(job.c.id, job.c.spec)):
        pairs = json.loads(spec).get("metadata") or {}
        rows += [{"job_id": job_id, "key": key, "value": value} for key, value in pairs.items()]
    if rows:
        connection.execute(sa.insert(label), rows)
