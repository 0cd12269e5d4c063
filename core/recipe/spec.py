"""JobSpec: what to train and how. It is the body of POST /v1/jobs and the content of a job file.

The class checks the shape and the bounds of single fields. The rules between fields are in core/recipe/checks and are
called by core/recipe/parse.py alone.
"""

from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from core.recipe.averaging import EMA, SWA, Ensemble
from core.recipe.clipping import ClipGrad
from core.recipe.component import DEFERRED, Positive, Spec, expand_switch
from core.recipe.component import Fraction as Share
from core.recipe.data import Data
from core.recipe.duration import Duration
from core.recipe.facts import Task
from core.recipe.initial_weights import Start
from core.recipe.models import Model
from core.recipe.monitor import Monitor
from core.recipe.optimizers import Optimizer
from core.recipe.sam import SAM
from core.recipe.schedules import Schedule
from core.recipe.schedules.constant import Constant
from core.recipe.shape import RunShape, resolve_shape
from core.recipe.stopping import EarlyStopping, Rollback, Target
from core.recipe.text_fields import Label, Name, Note

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]


def _batch_size(value: object) -> int | Literal["full"]:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**9:
        return value
    if value == "full":
        return "full"
    raise PydanticCustomError("batch_size", 'a whole number from 1 to the size of the train set, or "full"')


BatchSize = Annotated[
    int | Literal["full"],
    PlainValidator(_batch_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "full"}], "examples": [32, "full"]}),
]
SwaSwitch = Annotated[SWA | None, BeforeValidator(expand_switch, json_schema_input_type=bool | SWA | None)]
EmaSwitch = Annotated[EMA | None, BeforeValidator(expand_switch, json_schema_input_type=bool | EMA | None)]
StoppingSwitch = Annotated[
    EarlyStopping | None, BeforeValidator(expand_switch, json_schema_input_type=bool | EarlyStopping | None)
]
RollbackSwitch = Annotated[
    Rollback | None, BeforeValidator(expand_switch, json_schema_input_type=bool | Rollback | None)
]
SamSwitch = Annotated[SAM | None, BeforeValidator(expand_switch, json_schema_input_type=bool | SAM | None)]
Undecayed = Literal["bias", "norm"]
Loss = Literal["cross_entropy", "mse", "function"]
Metric = Literal["accuracy", "mae", "r2"]
LOSSES: dict[Task, tuple[Loss, ...]] = {
    "classification": ("cross_entropy",),
    "regression": ("mse",),
    "function": ("function",),
    "language_model": ("cross_entropy",),
}
"""The losses that fit a task, the default first."""
METRICS: dict[Task, tuple[Metric, ...]] = {
    "classification": ("accuracy",),
    "regression": ("mae", "r2"),
    "function": (),
    "language_model": (),
}
"""The metrics that fit a task; by default all of them are reported."""


class Evaluate(Spec):
    """How often the validation split is evaluated; also at the end. The test split is evaluated once, at the end."""

    every: Duration = Duration(Fraction(1), "ep")


class Checkpoints(Spec):
    """A resumable checkpoint every `every`, once a minute, and at the end.

    Retention keeps the newest `keep_last`, and in addition the `keep_best` best by `monitor`. Of the weights at the
    ends of cycles it keeps the newest `keep_cycles`.
    """

    every: Duration = Duration.of_steps(1000)
    keep_last: Annotated[int, Field(ge=2, le=1000)] = 2
    keep_cycles: Annotated[int, Field(ge=1, le=1000)] = 20
    keep_best: Annotated[int, Field(ge=0, le=1000)] = 0
    monitor: Monitor = "val.loss"


class Resources(Spec):
    """Where the job may run. `auto` takes any free slot."""

    device: Literal["auto", "cpu", "gpu"] = "auto"


class JobSpec(Spec):
    """A training job."""

    model_config = DEFERRED

    name: Name | None = None
    model: Model
    data: Data
    optimizer: Optimizer
    batch_size: BatchSize = 32
    accumulate: Count = 1
    drop_last: bool = False
    sampling: Literal["without_replacement", "with_replacement"] = "without_replacement"
    clip_grad: ClipGrad | None = None
    sam: SamSwitch = None
    no_decay: Annotated[tuple[Undecayed, ...], Field(max_length=2)] = ()
    schedule: Schedule = Constant()
    stop_lr: Positive | None = None
    swa: SwaSwitch = None
    ema: EmaSwitch = None
    ensemble: Ensemble | None = None
    early_stopping: StoppingSwitch = None
    target: Target | None = None
    rollback: RollbackSwitch = None
    epochs: Count | None = None
    steps: Count | None = None
    seconds: Seconds | None = None
    seed: Seed = 0
    start: Annotated[Start | None, Field(alias="from")] = None
    loss: Loss | None = None
    label_smoothing: Share = 0.0
    metrics: Annotated[tuple[Metric, ...], Field(max_length=8)] | None = None
    evaluate: Evaluate = Evaluate()
    checkpoints: Checkpoints = Checkpoints()
    log_every: Count = 1
    precision: Literal["auto", "fp32"] = "auto"
    deterministic: bool = True
    resources: Resources = Resources()
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    max_retries: Annotated[int, Field(ge=0, le=10)] = 0
    metadata: Annotated[dict[Label, Note], Field(max_length=16)] = Field(default_factory=dict)

    def shape(self) -> RunShape:
        """The sizes of the run. Raises InvalidSpec if its data is a dataset that has not been looked up."""
        facts = self.data.facts()
        return resolve_shape(facts, self.data.split(facts), self)

    def resolved(self, shape: RunShape | None = None) -> Self:
        """The same job with every default that depends on other fields filled in. Idempotent.

        `shape` is the shape of this job, if the caller has it already.
        """
        sizes = shape or self.shape()
        task, run, lr = sizes.facts.task, sizes.run, self.optimizer.lr
        filled: dict[str, Any] = {
            "optimizer": self.optimizer.resolved(),
            "schedule": self.schedule.resolved(run, lr),
            "swa": self.swa.resolved(lr) if self.swa else None,
            "ema": self.ema.resolved() if self.ema else None,
            "ensemble": self.ensemble.resolved(run, lr) if self.ensemble else None,
            "early_stopping": self.early_stopping.resolved() if self.early_stopping else None,
            "loss": self.loss or LOSSES[task][0],
            "metrics": METRICS[task] if self.metrics is None else self.metrics,
            "precision": "fp32",
        }
        return self.model_copy(update=filled)
