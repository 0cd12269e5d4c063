"""The kind `prepare`: it reads an uploaded file and writes the shards of a dataset. The light lane of a worker runs it.

Its jobs are made by uploads alone, and are shown as the status of their dataset.
"""

from collections.abc import Mapping
from typing import Any, Final

from core.errors import InvalidSpec
from core.jobs.kinds.base import JobKind, Retention
from core.recipe.prepare import PrepareSpec


def parse_prepare_spec(_body: bytes, _document: object) -> PrepareSpec:
    """Refuse it: no request may name the spec of such a job."""
    raise InvalidSpec("Jobs of this kind are made by uploads: POST /v1/datasets.")


def read_prepare_spec(text: str) -> PrepareSpec:
    """The row's spec. It is checked again, since `read_stored` leaves the values of a dict as they are."""
    return PrepareSpec.model_validate_json(text)


def keep_no_checkpoints(_stored: Mapping[str, Any]) -> Retention:
    return Retention()


def light_lane(_spec: PrepareSpec) -> str:
    return "light"


PREPARE: Final[JobKind[PrepareSpec]] = JobKind(
    name="prepare",
    noun="preparation",
    collection="datasets",
    id_prefix="prep",
    parse_spec=parse_prepare_spec,
    read_spec=read_prepare_spec,
    keep_checkpoints=keep_no_checkpoints,
    slot_needed=light_lane,
)
