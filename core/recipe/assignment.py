"""What a runner is told: everything it needs, and no secret."""

from pathlib import Path
from typing import Any, Literal

from core.recipe.analyses import Analysis
from core.recipe.component import DEFERRED, Spec
from core.recipe.plan import ExecutionPlan
from core.recipe.spec import JobSpec


class Resume(Spec):
    """A verified checkpoint on local disk; `manifest` is the JSON that stood beside its tensors.

    `anew` is None where the job goes on from a checkpoint of its own. From another job's one it goes on as if the run
    had not ended there, and the parts of these names begin with nothing: see core.recipe.branch.
    """

    weights: Path
    state: Path
    manifest: dict[str, Any]
    anew: tuple[str, ...] | None = None


class AnyAssignment(Spec):
    """One attempt of one job of any kind. `scratch` is an empty folder of its own for checkpoints."""

    job: str
    attempt: int
    kind: str
    spec: Spec
    plan: ExecutionPlan
    scratch: Path
    resume: Resume | None = None


class Assignment(AnyAssignment):
    """One attempt of one training. `initial` is a verified file of the weights that it begins with."""

    model_config = DEFERRED
    kind: Literal["train"] = "train"
    spec: JobSpec
    dataset: Path
    initial: Path | None = None


class Source(Spec):
    """Weights that an analysis looks at: a verified file, or none where a recipe begins with its seed.

    `label` is what people call them, `spec` the job that they are of.
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
    """The result of an analysis that another one reads: its numbers as JSON, and its arrays as a verified npz file."""

    label: str
    spec: Analysis
    numbers: dict[str, Any]
    data: Path


class AnalysisAssignment(AnyAssignment):
    """One attempt of one analysis; `resume` holds the tiles that an earlier one has done.

    It has `sources` where it looks at jobs, `readings` where it looks at what analyses have found.
    """

    model_config = DEFERRED
    kind: Literal["analysis"] = "analysis"
    spec: Analysis
    sources: tuple[Source, ...] = ()
    readings: tuple[AnalysisResult, ...] = ()
