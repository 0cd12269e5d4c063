"""One kind of job as a record. A record imports the recipe alone: no database, no HTTP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from core.recipe.plan import Planned
from core.recipe.spec import Checkpoints

Reads = Literal["weights", "results"]
"""What a job has as its inputs: checkpoints (or the recipe) of other jobs, or the results of analyses."""

SLOT_NEEDS: Final = {"auto": "any", "cpu": "cpu", "gpu": "gpu"}


class QueuedSpec(Planned, Protocol):
    """What the queue reads of a spec, whatever its kind: all of them have these fields."""

    @property
    def name(self) -> str | None: ...

    @property
    def priority(self) -> int: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def max_retries(self) -> int: ...

    def model_dump_json(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Retention:
    """How many checkpoints of a job stay: the `newest` ones by checkpoint kind, and of `last` the best `best` as well.

    A checkpoint kind that is not named has no limit.
    """

    newest: Mapping[str, int] = field(default_factory=dict)
    best: int = 0
    monitor: str = "val.loss"

    @classmethod
    def from_policy(cls, policy: Checkpoints) -> "Retention":
        """The retention that the `checkpoints` of a spec set."""
        return cls({"last": policy.keep_last, "cycle_end": policy.keep_cycles}, policy.keep_best, policy.monitor)


def slot_needed(spec: QueuedSpec) -> str:
    """The kind of slot that can run a spec: cpu, gpu or any."""
    return SLOT_NEEDS[spec.resources.device]


S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class JobKind(Generic[S]):
    """One kind of job. `S` is the class of its specs.

    A new kind is a file beside this one and a line in `__init__`; how a worker runs it is in `worker/kinds`.
    """

    name: str
    """The value of the column `job.kind`, and of `kind` in an assignment."""
    noun: str
    """The word for one such job in messages."""
    collection: str
    """Where the API shows them: `/v1/<collection>/<id>`."""
    id_prefix: str
    """Ids begin with it and an underscore."""
    parse_spec: Callable[[bytes, object], S]
    """(body, the same as parsed JSON) -> the checked spec. Raises InvalidSpec."""
    read_spec: Callable[[str], S]
    """The column `job.spec` -> the spec. The one place where a stored spec of this kind becomes an object."""
    keep_checkpoints: Callable[[Mapping[str, Any]], Retention]
    """The column `job.spec` as JSON -> which of the job's checkpoints stay."""
    slot_needed: Callable[[S], str]
    """The spec -> the kind of slot that can run it."""
    reads: Callable[[S], Reads] | None = None
    """The spec -> what it reads, for a kind whose jobs have rows of `analysis_input`."""


def find_kind(kinds: Sequence[JobKind[Any]], name: str) -> JobKind[Any] | None:
    """The record of this name; None: this release has no such kind."""
    return next((kind for kind in kinds if kind.name == name), None)
