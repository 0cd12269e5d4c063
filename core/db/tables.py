"""The tables. `job` holds what is written once or rarely; every heartbeat updates the narrow row of `job_state`.

All times are seconds since 1970 by the database's own clock, as floating point.
"""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from core.lifecycle import Desired, Status
from core.non_finite import encode_non_finite


class JsonText(TypeDecorator[Any]):
    """JSON as text: keeps the order of keys, takes any string, and cannot refuse what PostgreSQL's jsonb refuses."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        try:
            return json.dumps(value, separators=(",", ":"), allow_nan=False)
        except ValueError:
            return json.dumps(encode_non_finite(value), separators=(",", ":"), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


# SQLite's STRICT tables, which refuse text in a number column, know only its own five type names.
Number: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")
Long: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    },
)


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _chunk_columns() -> tuple[Column[Any], ...]:
    return (
        Column("job_id", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
        Column("series", Text, primary_key=True),
        Column("after_step", Long, primary_key=True),  # the step of the checkpoint before these points, or 0
        Column("number", Integer, primary_key=True),
        Column("attempt", Integer, nullable=False),  # times 1024, plus rollbacks: see core.jobs.metrics.chunks
        Column("first_step", Long, nullable=False),
        Column("last_step", Long, nullable=False),
        Column("points", Integer, nullable=False),
        Column("steps", LargeBinary, nullable=False),  # little-endian int64
        Column("values", LargeBinary, nullable=False),  # little-endian float64
        Column("times", LargeBinary, nullable=False),  # little-endian float64, unix seconds
    )


project = Table(
    "project",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Number, nullable=False),
    Column("created_by", Text, nullable=False),  # an owner
    sqlite_strict=True,
)

job = Table(
    "job",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),  # the owner who submitted it
    Column("project", Text),  # of the keys that see it; a trigger sets it for the release before
    Column("kind", Text, nullable=False),
    Column("name", Text),
    Column("spec", Text, nullable=False),  # the resolved JobSpec as JSON, never changed
    Column("edits", JsonText),  # the owner's changes of name, priority and metadata since
    Column("plan", Text),  # the ExecutionPlan as JSON, written at the first claim
    Column("created_at", Number, nullable=False),
    Column("started_at", Number),
    Column("finished_at", Number),
    Column("stop_reason", Text),
    Column("error", JsonText),
    Column("results", JsonText),
    Column("environment", JsonText),
    Column("resume", JsonText),
    Column("parent_id", Text),  # the job that it continues; no foreign key: the child may outlive it
    Column("parent_verb", Text),  # retry | fork | from
    Column("parent_step", Long),  # of the checkpoint that it branched from
    Column("initial_id", Text),  # the checkpoint that gives the initial weights
    Column("anew", JsonText),  # parts of the run that start afresh, see core.recipe.branch
    Index("ix_job_project_id", "project", "id"),
    Index("ix_job_parent_id", "parent_id"),
    Index("ix_job_initial_id", "initial_id"),
    sqlite_strict=True,
)

job_state = Table(
    "job_state",
    metadata,
    Column("job_id", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("status", Text, nullable=False),
    Column("desired", Text, nullable=False),
    Column("needs", Text, nullable=False),  # cpu | gpu | any | light
    Column("attempt", Integer, nullable=False),  # the fencing token: grows at each claim, and only then
    Column("lease_until", Number),
    Column("worker", Text),
    Column("losses", Integer, nullable=False),  # workers lost since the last checkpoint
    Column("failures", Integer, nullable=False),  # failures of the job itself
    Column("rank", Number, nullable=False),  # queued_at - priority * age_step; the lowest is served first
    Column("checkpoint_id", Text),
    Column("published_at", Number),
    Column("version", Integer, nullable=False),  # grows with every change that a reader can see
    Column("progress", JsonText, nullable=False),
    Column("owner", Text),  # as in `job`; empty in rows of the first release
    Column("project", Text),  # as in `job`, so that the claim can count; empty where `owner` is empty
    Column("most_running", Integer),  # it is claimed only while its project runs fewer jobs
    Column("spared_until", Number),  # the lease as a gap extended it; a heartbeat changes lease_until only
    _one_of("status", Status),
    _one_of("desired", Desired),
    CheckConstraint("needs IN ('cpu', 'gpu', 'any', 'light')", name="needs"),
    Index("ix_job_state_queue", "status", "rank", "job_id", "needs"),
    Index("ix_job_state_project_status", "project", "status"),
    Index("ix_job_state_checkpoint_id", "checkpoint_id"),
    sqlite_strict=True,
    # Heartbeats change no indexed column: with room on the page PostgreSQL does heap-only updates.
    postgresql_with={"fillfactor": 70},
)

analysis_input = Table(
    "analysis_input",
    metadata,
    Column("analysis_id", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    # No foreign keys: an analysis that has ended outlives its input.
    Column("job_id", Text, nullable=False),
    Column("checkpoint_id", Text),  # empty where the input is the training of a job
    Column("step", Long, nullable=False),
    Column("checkpoint_kind", Text),
    Index("ix_analysis_input_job_id", "job_id"),
    Index("ix_analysis_input_checkpoint_id", "checkpoint_id"),
    sqlite_strict=True,
)

job_plugin = Table(
    "job_plugin",
    metadata,
    Column("job_id", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("plugin", Text, primary_key=True),  # a distribution that a worker must have to run the job
    Column("version", Text, nullable=False),  # where the job was taken in
    sqlite_strict=True,
)

dataset = Table(
    "dataset",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),  # empty where it was deleted: garbage collection removes the row
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),  # a label: it points at the newest ready dataset of the project
    Column("status", Text, nullable=False),  # `queued` until its job has ended: see core.jobs.datasets.views
    Column("format", Text, nullable=False),  # as asked for: auto, or one of the formats
    Column("filename", Text),
    Column("options", JsonText, nullable=False),  # of core.recipe.prepare.PrepareOptions
    Column("sha256", Text),  # of the bytes: announced, or measured by the prepare job
    Column("version", Text),  # SHA-256 of manifest.json; empty until the prepare job knows it
    Column("kind", Text),  # table | images | tokens | arrays
    Column("manifest", Text),  # manifest.json, whose digest is the version
    Column("errors", JsonText),  # why it was refused
    Column("error", JsonText),  # code, message and remedy, where it is the service that failed
    Column("warnings", JsonText),
    Column("confined", JsonText),  # the walls that its prepare process had
    Column("source", JsonText),  # where the bytes are, for a dataset by reference
    Column("bytes", Long),  # announced; empty where an upload did not say
    Column("received", Long, nullable=False),  # the end of the last recorded piece
    Column("examples", Long),
    Column("stored_bytes", Long),  # of the shards
    Column("job_id", Text),  # its newest prepare job
    Column("created_at", Number, nullable=False),
    Column("finished_at", Number),
    Column("expires_at", Number),  # when the unfinished upload, or the pieces of a prepared one, are removed
    _one_of("status", ("uploading", "queued", "ready", "refused", "failed", "cancelled")),
    Index("ix_dataset_project_id", "project", "id"),
    Index("ix_dataset_project_name", "project", "name", "id"),
    Index("ix_dataset_project_sha256", "project", "sha256"),
    Index("ix_dataset_version", "version"),
    Index("ix_dataset_job_id", "job_id"),
    Index("ix_dataset_expires_at", "expires_at"),
    sqlite_strict=True,
)

dataset_version = Table(
    "dataset_version",
    metadata,
    Column("version", Text, primary_key=True),  # a folder of the store, which rows of `dataset` may share
    Column("doomed_at", Number),  # since when its objects are being removed; nobody may use it then
    sqlite_strict=True,
)

upload_piece = Table(
    "upload_piece",
    metadata,
    Column("dataset_id", Text, ForeignKey("dataset.id", ondelete="CASCADE"), primary_key=True),
    Column("offset", Long, primary_key=True, autoincrement=False),
    Column("bytes", Long, nullable=False),
    Column("key", Text, nullable=False),  # of its object; a corrected dataset shares the pieces of the first
    Column("sha256", Text),  # empty for a part that was sent to the store directly
    Index("ix_upload_piece_key", "key"),
    sqlite_strict=True,
)

job_dataset = Table(
    "job_dataset",
    metadata,
    Column("job_id", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("dataset_id", Text, primary_key=True),  # no foreign key: a job that has ended outlives its data
    Index("ix_job_dataset_dataset_id", "dataset_id"),
    sqlite_strict=True,
)

job_split = Table(
    "job_split",
    metadata,
    Column("job_id", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("codes", LargeBinary, nullable=False),  # zlib of a byte per example: 0 train, 1 validation, 2 test, 3 none
    sqlite_strict=True,
)

metric_chunk = Table(
    "metric_chunk",
    metadata,
    *_chunk_columns(),
    sqlite_strict=True,
)

metric_chunk_aside = Table(
    "metric_chunk_aside",  # points after a rollback's step, until the next resumable checkpoint is stored
    metadata,
    *_chunk_columns(),
    sqlite_strict=True,
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Long, nullable=False),
    Column("epoch", Long, nullable=False),
    Column("kind", Text, nullable=False),
    Column("resumable", Integer, nullable=False),
    Column("key", Text, nullable=False, unique=True),  # the folder of its objects in the store
    Column("sha256", Text, nullable=False),  # of weights.safetensors, as is `bytes`
    Column("bytes", Long, nullable=False),
    Column("files", JsonText, nullable=False),
    Column("metrics", JsonText, nullable=False),
    Column("manifest", JsonText, nullable=False),
    Column(
        "status", Text, nullable=False
    ),  # good | corrupt | doomed (pending deletion: its objects are about to be removed)
    Column("created_at", Number, nullable=False),
    Column("stored", Long),  # bytes of all its files; empty in rows of earlier releases
    Column("pinned_at", Number),  # when its owner pinned it
    Column("superseded", Integer),  # 1: kept by its pin alone, because another checkpoint replaced it
    Column("missing_at", Number),  # since when it is corrupt only because its objects are missing
    _one_of("status", ("good", "corrupt", "doomed")),
    Index("ix_checkpoint_job_id_step", "job_id", "step"),
    Index("ix_checkpoint_status", "status"),
    sqlite_strict=True,
)

event = Table(
    "event",
    metadata,
    Column("id", Long, primary_key=True, autoincrement=True),
    Column("job_id", Text, ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("at", Number, nullable=False),
    Column("data", JsonText, nullable=False),
    Index("ix_event_job_id_id", "job_id", "id"),
    sqlite_strict=True,
    # An id is never reused, so that a stream can resume after the last id that it sent.
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", Text, primary_key=True),  # represents a project: core.jobs.projects.owner_of_project
    Column("key", Text, primary_key=True),
    Column("body_digest", Text, nullable=False),
    Column("job_id", Text, nullable=False),  # no foreign key: the key outlives a deleted job
    Column("created_at", Number, nullable=False, index=True),
    sqlite_strict=True,
)

service_state = Table(
    "service_state",
    metadata,
    Column(
        "name", Text, primary_key=True
    ),  # shared by all processes: "tick", "care", "sweep", "probe"; counters, see core/jobs/health/counters.py
    Column("at", Number, nullable=False),  # of a counter: its value
    sqlite_strict=True,
)

job_label = Table(
    "job_label",
    metadata,
    Column("job_id", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),  # one pair of the job's metadata, to search by
    Column("value", Text, nullable=False),
    Index("ix_job_label_key_value", "key", "value", "job_id"),
    sqlite_strict=True,
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),  # the owner of the jobs that are submitted with it
    Column("project", Text),  # where its scopes apply; set as in `job`
    Column("name", Text),
    Column("prefix", Text, nullable=False),  # the part of the key that may be shown
    Column("sha256", Text, nullable=False),  # of its secret, which is not stored
    Column("scopes", JsonText, nullable=False),
    Column("limits", JsonText, nullable=False),
    Column("created_at", Number, nullable=False),
    Column("expires_at", Number),
    Column("revoked_at", Number),  # the row stays: after the first key, the service requires one
    Column("last_used_at", Number),
    Index("ix_api_key_project_id", "project", "id"),
    sqlite_strict=True,
)

worker = Table(
    "worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", JsonText, nullable=False),  # {"cpu": {"slots": 2, "free": 1}}
    Column("release", Text, nullable=False),
    Column("started_at", Number, nullable=False),
    Column("seen_at", Number, nullable=False),
    Column("devices", JsonText),  # a list, see core.jobs.health.workers.SlotState; empty in rows of earlier releases
    Column("plugins", JsonText),  # name -> version of those that it has; empty in rows of earlier releases
    sqlite_strict=True,
)

generation = Table(
    "generation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("oldest", Integer, nullable=False),  # releases of earlier generations must not run on this database
    CheckConstraint("id = 1", name="one"),
    sqlite_strict=True,
)

store_identity = Table(
    "store_identity",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column(
        "id", Text, nullable=False
    ),  # the content of the marker in the object store, see core/jobs/store_identity.py
    Column("created_at", Number, nullable=False),
    CheckConstraint("one = 1", name="one"),
    sqlite_strict=True,
)
