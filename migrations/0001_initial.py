"""The first schema: jobs and their frequently updated state, metric chunks, checkpoints, events, idempotency keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def number() -> TypeEngine[float]:
    return sa.Double().with_variant(sa.REAL(), "sqlite")


def long() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _jobs()
    _metric_chunks()
    _checkpoints()
    _events()
    _service()


def downgrade() -> None:
    for table in ("service_state", "idempotency", "event", "checkpoint", "metric_chunk", "job_state", "job"):
        op.drop_table(table)


def _jobs() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("plan", sa.Text),
        sa.Column("created_at", number(), nullable=False),
        sa.Column("started_at", number()),
        sa.Column("finished_at", number()),
        sa.Column("stop_reason", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("results", sa.Text),
        sa.Column("environment", sa.Text),
        sa.Column("resume", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sqlite_strict=True,
    )
    op.create_index("ix_job_owner_id", "job", ["owner", "id"])
    op.create_table(
        "job_state",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("desired", sa.Text, nullable=False),
        sa.Column("needs", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lease_until", number()),
        sa.Column("worker", sa.Text),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("rank", number(), nullable=False),
        sa.Column("checkpoint_id", sa.Text),
        sa.Column("published_at", number()),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_job_state_status"),
        ),
        sa.CheckConstraint("desired IN ('run', 'pause', 'cancel')", name=op.f("ck_job_state_desired")),
        sa.CheckConstraint("needs IN ('cpu', 'gpu', 'any')", name=op.f("ck_job_state_needs")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_state_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_state"),
        sqlite_strict=True,
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("ix_job_state_queue", "job_state", ["status", "rank", "job_id"])


def _metric_chunks() -> None:
    op.create_table(
        "metric_chunk",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
        sa.Column("after_step", long(), nullable=False, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("first_step", long(), nullable=False),
        sa.Column("last_step", long(), nullable=False),
        sa.Column("points", sa.Integer, nullable=False),
        sa.Column("steps", sa.LargeBinary, nullable=False),
        sa.Column("values", sa.LargeBinary, nullable=False),
        sa.Column("times", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_metric_chunk_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "series", "after_step", "number", name="pk_metric_chunk"),
        sqlite_strict=True,
    )


def _checkpoints() -> None:
    op.create_table(
        "checkpoint",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("step", long(), nullable=False),
        sa.Column("epoch", long(), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("resumable", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", long(), nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", number(), nullable=False),
        sa.CheckConstraint("status IN ('good', 'corrupt', 'doomed')", name=op.f("ck_checkpoint_status")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_checkpoint_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoint"),
        sa.UniqueConstraint("key", name="uq_checkpoint_key"),
        sqlite_strict=True,
    )
    op.create_index("ix_checkpoint_job_id_step", "checkpoint", ["job_id", "step"])
    op.create_index("ix_checkpoint_status", "checkpoint", ["status"])


def _events() -> None:
    op.create_table(
        "event",
        sa.Column("id", long(), nullable=False, autoincrement=True),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", number(), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_event_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_job_id_id", "event", ["job_id", "id"])


def _service() -> None:
    op.create_table(
        "idempotency",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("body_digest", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("created_at", number(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_idempotency"),
        sqlite_strict=True,
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])
    op.create_table(
        "service_state",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("at", number(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_service_state"),
        sqlite_strict=True,
    )
