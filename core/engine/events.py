"""The events that the engine reports while it trains, and the stop request that it polls.

Series of the training step (`train.loss`, `lr`, `grad_norm`) have t = 0, 1, … as step: the t-th optimizer step, with
its loss before its update. Series of evaluations (`val.*`, `swa.val.*`, `test.*`, `best.test.*`, `function.*`) and the
coordinates of a point (`point.*`, from 0 on) have the number of completed steps. Points emitted before a resumable
CheckpointWritten belong to the steps before that checkpoint, points emitted after it to the steps after it.
`throughput` is measured time: a resume does not repeat it exactly.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from core.recipe.stopping import StopReason

Series = tuple[list[int], list[float], list[float]]  # steps, values, unix times

Outcome = Literal["succeeded", "failed", "cancelled", "stopped"]
StopRequest = Literal["cancel", "checkpoint"]
Kind = Literal["last", "swa", "ema", "best", "cycle_end", "snapshot", "initial", "result"]


@dataclass(frozen=True, slots=True)
class Started:
    """The attempt starts after `step` complete optimizer steps; `environment` describes what it computes on.

    `split` says which split each example belongs to, see core.engine.datasets.splitting.encode_split.
    """

    step: int
    parameters: int
    environment: dict[str, Any]
    split: str | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """`step` of `steps` and `epoch` of `epochs` are complete; `loss` and `lr` are those of the last logged step.

    `steps` and `epochs` are None if only a time limit ends the run; `fraction` is then the share of the time.
    """

    step: int
    steps: int | None
    epoch: int
    epochs: int | None
    fraction: float
    loss: float | None
    lr: float | None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PointsLogged:
    """New points, by series. At most a thousand or so each."""

    series: dict[str, Series]


@dataclass(frozen=True, slots=True)
class CheckpointWritten:
    """`folder` holds the named files, durably on disk. Only a resumable checkpoint can be used in a Resume.

    Of kind `best` only the newest is current; its `step` is that of the weights and may be far behind the run. Of kind
    `snapshot`, the members of an ensemble, the checkpoint of every step is current.
    """

    kind: Kind
    step: int
    epoch: int
    folder: str
    files: dict[str, dict[str, Any]]
    metrics: dict[str, float]
    manifest: dict[str, Any]
    resumable: bool


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """The checkpoint at `step` was not written, because this machine failed; the run continues.

    A later checkpoint replaces it. The last ones are written at the end, or the run does not succeed.
    """

    kind: Kind
    step: int
    message: str
    resumable: bool


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The run is back at its rollback point, after `step` complete steps: all events since that point are void.

    The rollback point is a resumable checkpoint or the start (step 0). Its checkpoint is written again right after.
    """

    step: int
    message: str


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the user."""

    level: Literal["info", "warning"]
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an attempt. `results[weights][split][metric]`, or the numbers of an analysis; `error` has code,
    message, remedy and the details of its code, see core.engine.failure.

    "stopped" means that the run can resume from its last checkpoint, which was written at this step unless a weight
    was no longer finite.
    """

    outcome: Outcome
    stop_reason: StopReason | None
    results: dict[str, Any]
    error: dict[str, Any] | None
    progress: dict[str, Any]


Event = Started | RunProgress | PointsLogged | CheckpointWritten | CheckpointFailed | RolledBack | Log


class Observer(Protocol):
    """Receives the events of a run, and says whether it is to stop."""

    def emit(self, event: Event) -> None:
        """Take one event. It is called from the training thread and must return quickly."""

    def stop_request(self) -> StopRequest | None:
        """The request to stop, if there is one; polled once after every step."""
