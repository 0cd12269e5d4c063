"""The assignment of a runner: all the data that it needs, and no secret."""

from pathlib import Path
from typing import Any, Literal

from core.recipe.analyses import Analysis
from core.recipe.component import DEFERRED, Spec
from core.recipe.plan import ExecutionPlan
from core.recipe.spec import JobSpec


class Resume(Spec):
    """A verified checkpoint on local disk; `manifest` is the JSON that was stored with its tensors.

    `anew` is None where the job continues from its own checkpoint. A fork continues from another job's checkpoint as if
    that run had not ended there, and `anew` names the parts of the state that start afresh: see core.recipe.branch.
    """

    weights: Path
    state: Path
    manifest: dict[str, Any]
    anew: tuple[str, ...] | None = None


class AnyAssignment(Spec):
    """One attempt of one job of any kind. `scratch` is an empty folder for this attempt's checkpoints."""

    job: str
    attempt: int
    kind: str
    spec: Spec
    plan: ExecutionPlan
    scratch: Path
    resume: Resume | None = None


class Assignment(AnyAssignment):
    """One attempt of one training. `initial` is a verified file of its initial weights."""

    model_config = DEFERRED
    kind: Literal["train"] = "train"
    spec: JobSpec
    dataset: Path
    initial: Path | None = None


class Source(Spec):
    """Weights that an analysis reads: a verified file, or none where the seed of a recipe gives the initial weights.

    `label` names them for users; `spec` is that of their job.
    """

    model_config = DEFERRED
    label: str
    job: str
    checkpoint: str | None = None
    step: int = 0
    kind: str | None = None
    spec: JobSpec
    dataset: Path
    weights: Path | None = None


class AnalysisResult(Spec):
    """A result that another analysis reads: its numbers as JSON, and its arrays as a verified npz file."""

    label: str
    spec: Analysis
    numbers: dict[str, Any]
    data: Path


class AnalysisAssignment(AnyAssignment):
    """One attempt of one analysis; `resume` holds the tiles that an earlier attempt has computed.

    It has `sources` if it reads jobs, `readings` if it reads the results of analyses.
    """

    model_config = DEFERRED
    kind: Literal["analysis"] = "analysis"
    spec: Analysis
    sources: tuple[Source, ...] = ()
    readings: tuple[AnalysisResult, ...] = ()
