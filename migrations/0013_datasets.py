"""Uploaded datasets, their pieces, the jobs that use them; and jobs that need the light lane of a worker.

The release before runs on this schema while it is being replaced: it writes no rows of these tables, and asks for jobs
by the kinds of slot that it has, so that it never claims one that needs `light`.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BEFORE: Final = "needs IN ('cpu', 'gpu', 'any')"
AFTER: Final = "needs IN ('cpu', 'gpu', 'any', 'light')"
STATUSES: Final = "'uploading', 'queued', 'ready', 'refused', 'failed', 'cancelled'"


def upgrade() -> None:
    _replace_check(BEFORE, AFTER)
    _create_datasets()
    _create_pieces()
    _create_uses()


def downgrade() -> None:
    for table in ("job_dataset", "upload_piece", "dataset_version", "dataset"):
        op.drop_table(table)
    op.execute("DELETE FROM job WHERE id IN (SELECT job_id FROM job_state WHERE needs = 'light')")
    _replace_check(AFTER, BEFORE)


def _replace_check(old: str, new: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE job_state DROP CONSTRAINT ck_job_state_needs")
        op.execute(f"ALTER TABLE job_state ADD CONSTRAINT ck_job_state_needs CHECK ({new})")
    else:
        _rebuild_job_state(old, new)


def _rebuild_job_state(old: str, new: str) -> None:
    """SQLite cannot change a check: a new table takes the rows, and the indices and triggers are made again.

    No table refers to job_state, so that nothing else changes. 100,000 rows take about half a second.
    """
    bind = op.get_bind()
    query = sa.text("SELECT type, sql FROM sqlite_schema WHERE tbl_name = 'job_state' AND sql IS NOT NULL")
    found = [(row.type, row.sql) for row in bind.execute(query)]
    (table,) = (sql for kind, sql in found if kind == "table")
    _, _, body = table.partition("(")
    if old not in body:
        raise RuntimeError(f"the table job_state has no check {old!r}")
    bind.exec_driver_sql(f"CREATE TABLE job_state_rebuilt ({body.replace(old, new)}")
    bind.exec_driver_sql("INSERT INTO job_state_rebuilt SELECT * FROM job_state")
    bind.exec_driver_sql("DROP TABLE job_state")
    bind.exec_driver_sql("ALTER TABLE job_state_rebuilt RENAME TO job_state")
    for kind, sql in found:
        if kind in {"index", "trigger"}:
            bind.exec_driver_sql(sql)


def _create_datasets() -> None:
    texts = ("format", "filename", "options", "sha256", "version", "kind", "manifest", "errors", "error", "warnings")
    op.create_table(
        "dataset",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=name not in {"format", "options"}) for name in texts),
        sa.Column("confined", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("bytes", _long()),
        sa.Column("received", _long(), nullable=False),
        sa.Column("examples", _long()),
        sa.Column("stored_bytes", _long()),
        sa.Column("job_id", sa.Text),
        sa.Column("created_at", _number(), nullable=False),
        sa.Column("finished_at", _number()),
        sa.Column("expires_at", _number()),
        sa.CheckConstraint(f"status IN ({STATUSES})", name=op.f("ck_dataset_status")),
        sa.PrimaryKeyConstraint("id", name="pk_dataset"),
        sqlite_strict=True,
    )
    op.create_index("ix_dataset_project_id", "dataset", ["project", "id"])
    op.create_index("ix_dataset_project_name", "dataset", ["project", "name", "id"])
    op.create_index("ix_dataset_project_sha256", "dataset", ["project", "sha256"])
    op.create_index("ix_dataset_version", "dataset", ["version"])
    op.create_index("ix_dataset_job_id", "dataset", ["job_id"])
    op.create_index("ix_dataset_expires_at", "dataset", ["expires_at"])
    op.create_table(
        "dataset_version",
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("doomed_at", _number()),
        sa.PrimaryKeyConstraint("version", name="pk_dataset_version"),
        sqlite_strict=True,
    )


def _create_pieces() -> None:
    op.create_table(
        "upload_piece",
        sa.Column("dataset_id", sa.Text, nullable=False),
        sa.Column("offset", _long(), nullable=False, autoincrement=False),
        sa.Column("bytes", _long(), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name="fk_upload_piece_dataset_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dataset_id", "offset", name="pk_upload_piece"),
        sqlite_strict=True,
    )
    op.create_index("ix_upload_piece_key", "upload_piece", ["key"])


def _create_uses() -> None:
    op.create_table(
        "job_dataset",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("dataset_id", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_dataset_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "dataset_id", name="pk_job_dataset"),
        sqlite_strict=True,
    )
    op.create_index("ix_job_dataset_dataset_id", "job_dataset", ["dataset_id"])


def _number() -> TypeEngine[float]:
    return sa.Double().with_variant(sa.REAL(), "sqlite")


def _long() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")
