"""What a runner is told: everything it needs, and no secret."""

from pathlib import Path
from typing import Any, Literal

from core.recipe.component import Spec
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


class Assignment(Spec):
    """One attempt of one job. `scratch` is an empty folder of its own for checkpoints, `initial` a verified file of the
    weights that it begins with.
    """

    job: str
    attempt: int
    kind: Literal["train"] = "train"
    spec: JobSpec
    plan: ExecutionPlan
    dataset: Path
    scratch: Path
    resume: Resume | None = None
    initial: Path | None = None
