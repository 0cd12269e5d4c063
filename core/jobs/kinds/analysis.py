"""The kind `analysis`: it reads checkpoints of jobs, or results of analyses, and trains nothing that is kept."""

from collections.abc import Mapping
from typing import Any, Final

from core.jobs.kinds.base import JobKind, Reads, Retention, slot_needed
from core.recipe.analyses import AnyAnalysis
from core.recipe.parse import parse_analysis
from core.recipe.spec import Checkpoints
from core.recipe.stored import read_analysis


def keep_checkpoints(_stored: Mapping[str, Any]) -> Retention:
    """The default retention: the field `checkpoints` of an analysis names the checkpoints that it reads."""
    return Retention.from_policy(Checkpoints())


def reads(spec: AnyAnalysis) -> Reads:
    return "results" if spec.takes == "results" else "weights"


ANALYSIS: Final[JobKind[AnyAnalysis]] = JobKind(
    name="analysis",
    noun="analysis",
    collection="analyses",
    id_prefix="an",
    parse_spec=parse_analysis,
    read_spec=read_analysis,
    keep_checkpoints=keep_checkpoints,
    slot_needed=slot_needed,
    reads=reads,
)
