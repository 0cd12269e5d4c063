"""What the engine reports while it trains, and the one thing that it asks.

Series of the training step (`train.loss`, `lr`, `grad_norm`) carry t = 0, 1, …: the t-th optimizer step, its loss
before its update. Series of evaluations (`val.*`, `swa.val.*`, `test.*`, `best.test.*`, `function.*`) and the place of
a point (`point.*`, from 0 on) carry the number of completed steps. Points that come before a resumable
CheckpointWritten belong to its past, those that come after it to its future. `throughput` is measured time: it is no
part of what a resume repeats exactly.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from core.recipe.stopping import StopReason

Series = tuple[list[int], list[float], list[float]]  # steps, values, unix times

Outcome = Literal["succeeded", "failed", "cancelled", "stopped"]
StopRequest = Literal["cancel", "checkpoint"]
Kind = Literal["last", "swa", "ema", "best", "cycle_end", "snapshot", "result"]


@dataclass(frozen=True, slots=True)
class Started:
    """`step` optimizer steps were complete already; `environment` says on what this attempt computes."""

    step: int
    parameters: int
    environment: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where the run stands: `step` of `steps` complete, `epoch` of `epochs`; loss and rate of the last logged step.

    `steps` and `epochs` are None where only a clock ends the run; `fraction` is then the share of the time.
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
    """`folder` holds the named files, on disk for good. Only a resumable one can be given back in a Resume.

    Of kind `best` the newest counts; its `step` is that of the weights, which may be long past. Of kind `snapshot`, the
    members of an ensemble, each step counts.
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
    """What should have been a checkpoint at `step` was not written, because this machine failed; the run goes on.

    A later one makes it good. Whatever counts at the end is written then, or the run does not succeed.
    """

    kind: Kind
    step: int
    message: str
    resumable: bool


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The run is back at its mark, where `step` steps were complete: what was told since is void.

    The mark was a resumable checkpoint, or the start (0: everything is void); it comes again right after this.
    """

    step: int
    message: str


@dataclass(frozen=True, slots=True)
class Log:
    """One line for people."""

    level: Literal["info", "warning"]
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended. `results[weights][split][metric]`, or the numbers of an analysis; `error` has code, message and
    remedy, and what its code adds, see core.engine.failure.

    "stopped" means that the run can go on from its last checkpoint, written at that very step unless weights had
    already ceased to be finite numbers.
    """

    outcome: Outcome
    stop_reason: StopReason | None
    results: dict[str, Any]
    error: dict[str, Any] | None
    progress: dict[str, Any]


Event = Started | RunProgress | PointsLogged | CheckpointWritten | CheckpointFailed | RolledBack | Log


class Observer(Protocol):
    """Whoever watches a run."""

    def emit(self, event: Event) -> None:
        """Take one event; called from the training thread, so be quick."""

    def stop_request(self) -> StopRequest | None:
        """Whether to stop; asked once after every step."""
