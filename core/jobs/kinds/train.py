"""The kind `train`: a spec is trained from its start, or from another job's checkpoint, to its end."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from core.jobs.kinds.base import JobKind, Retention, slot_needed
from core.recipe.averaging.ensemble import MEMBER
from core.recipe.parse import parse_job
from core.recipe.spec import Checkpoints, JobSpec
from core.recipe.stored import read_job, read_stored


def parse_train_spec(body: bytes, _document: object) -> JobSpec:
    """The body of a submit, with every default filled in. Raises InvalidSpec."""
    return parse_job(body)


def keep_checkpoints(stored: Mapping[str, Any]) -> Retention:
    """As the spec's `checkpoints` say, and as many snapshots as the ensemble has members."""
    kept = Retention.from_policy(read_stored(Checkpoints, stored["checkpoints"]))
    members = (stored.get("ensemble") or {}).get("members")
    return kept if members is None else replace(kept, newest={**kept.newest, MEMBER: members})


TRAIN: Final[JobKind[JobSpec]] = JobKind(
    name="train",
    noun="job",
    collection="jobs",
    id_prefix="job",
    parse_spec=parse_train_spec,
    read_spec=read_job,
    keep_checkpoints=keep_checkpoints,
    slot_needed=slot_needed,
)
