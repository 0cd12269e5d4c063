"""The base classes of analyses. An analysis studies existing weights or a recipe; it keeps no trained weights."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.component import Spec
from core.recipe.initial_weights import Start, Weights, same_shape
from core.recipe.spec import JobSpec, Resources
from core.recipe.text_fields import Label, Name, Note

SplitName = Literal["train", "val", "test"]
Takes = Literal["weights", "run", "recipe", "results"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Examples = Annotated[int, Field(ge=1, le=10**9)]

MOST_WORK = 1e15  # multiply-adds: a day on one CPU core, or minutes on a GPU
MOST_MEMORY = 8 * 2**30  # bytes


class AnyAnalysis(Spec):
    """The fields of every analysis, whether it reads jobs (AnalysisSpec) or results of analyses (ResultsSpec).

    A new analysis is a file in this folder, a line in its `__init__`, and the module of the engine that computes it.
    """

    summary: ClassVar[str]
    paper: ClassVar[str | None] = None
    implementation: ClassVar[str]
    """The module of the engine with `explore` and `report`."""
    takes: ClassVar[Takes]
    """The input: single weights; all checkpoints that a run has kept, in order; the recipe of a job; or results."""
    deterministic: ClassVar[bool] = True
    max_retries: ClassVar[int] = 0

    kind: str
    name: Name | None = None
    resources: Resources = Resources()
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    metadata: Annotated[dict[Label, Note], Field(max_length=16)] = Field(default_factory=dict)

    def contradictions(self) -> Iterator[FieldProblem]:
        """Fields that contradict each other, independent of the input. Called once, when it is submitted."""
        return iter(())

    @abstractmethod
    def problems(self, subjects: Sequence[Any]) -> Iterator[FieldProblem]:
        """Every reason to refuse the analysis for its input; `subjects` are the specs of the input."""


class ResultsSpec(AnyAnalysis):
    """Reads the results of `analyses` that have succeeded, all of the same weights."""

    takes: ClassVar[Takes] = "results"

    analyses: Annotated[
        tuple[Annotated[str, Field(pattern=r"^an_[0-9a-z]{26}$")], ...], Field(min_length=2, max_length=64)
    ]


class AnalysisSpec(AnyAnalysis):
    """The input is one `job` (its averaged weights if it has some, else the best, else the last; or the `weights`
    named), one `checkpoint`, or several `checkpoints`. `kind` selects the analysis.
    """

    takes: ClassVar[Takes] = "weights"
    fewest: ClassVar[int] = 1
    most: ClassVar[int] = 1
    alike: ClassVar[bool] = True
    """Whether all weights must have the same architecture."""

    job: Annotated[str, Field(pattern=r"^job_[0-9a-z]{26}$")] | None = None
    weights: Weights | None = None
    checkpoint: Annotated[str, Field(pattern=r"^ckpt_[0-9a-z]{26}$")] | None = None
    checkpoints: Annotated[tuple[Start, ...], Field(min_length=1, max_length=64)] | None = None
    examples: Examples | None = None
    seed: Seed = 0

    def contradictions(self) -> Iterator[FieldProblem]:
        where = [name for name in ("job", "checkpoint", "checkpoints") if getattr(self, name) is not None]
        if len(where) != 1:
            hint = 'as in "job": "job_…"' if self.fewest == 1 else 'as in "checkpoints": [{"job": "job_…"}, …]'
            yield FieldProblem("", "give the input: a job, a checkpoint, or checkpoints", hint)
            return
        count = len(self.requested_starts())
        if self.weights and self.job is None:
            yield FieldProblem("/weights", "they are those of a job", 'leave it out, or give "job"')
        elif self.weights and self.takes != "weights":
            yield FieldProblem("/weights", f"{self.kind} looks at more of a job than that", "leave it out")
        elif self.takes == "recipe" and self.job is None:
            yield FieldProblem(f"/{where[0]}", f"{self.kind} trains as a job does", 'give "job"')
        elif self.takes == "weights" and not self.fewest <= count <= self.most:
            many = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
            yield FieldProblem(f"/{where[0]}", f"{self.kind} looks at {many} of them, not {count}", None)

    def requested_starts(self) -> tuple[Start, ...]:
        """The requested weights, before a job is resolved to one of its checkpoints."""
        if self.checkpoints is not None:
            return self.checkpoints
        return (Start(job=self.job, weights=self.weights) if self.job else Start(checkpoint=self.checkpoint),)

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        """Every reason to refuse the analysis for the jobs of its input. Subclasses add to it."""
        first = subjects[0]
        where = "/checkpoints" if self.checkpoints else "/job" if self.job else "/checkpoint"
        for number, other in enumerate(subjects[1:] if self.alike else (), 1):
            if not same_shape((first.model, first.data.facts()), (other.model, other.data.facts())):
                message = f"is of another architecture than the first: {other.model.name} on {other.data.name}"
                yield FieldProblem(f"{where}/{number}" if self.checkpoints else where, message, "take alike ones")
        work, memory = (
            self.example_passes(first) * first.model.multiply_adds(first.data.facts()),
            self.memory_bytes(first),
        )
        if work > MOST_WORK:
            message = f"about {work:.1e} multiply-adds, {work / 1e10 / 3600:,.0f} hours of a CPU core"
            yield FieldProblem("", f"this is too much: {message}", "take fewer steps, or fewer `examples`")
        if memory > MOST_MEMORY:
            message = f"this needs about {memory / 2**30:,.1f} GiB of memory, more than {MOST_MEMORY / 2**30:g}"
            yield FieldProblem("", message, "take fewer directions or steps, or a smaller model")

    @abstractmethod
    def example_passes(self, subject: JobSpec) -> float:
        """The number of forward passes of one example; a backward pass counts as two."""

    def memory_bytes(self, subject: JobSpec) -> float:
        """The bytes of memory that it needs in addition to the network and the data."""
        return 8 * subject.model.parameter_count(subject.data.facts())

    def examples_of(self, subject: JobSpec, split: SplitName = "train") -> int:
        """The number of examples of a split that are used."""
        sizes = subject.shape().split
        there = {"train": sizes.train, "val": sizes.validation, "test": sizes.test}[split]
        return there if self.examples is None else min(there, self.examples)
