"""One training, as the parts that it is made of."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.checkpoints.rollback import RollbackPoint
from core.engine.checkpoints.stateful import Stateful
from core.engine.datasets.batches import Batch, BatchSampler, epoch_draws, epoch_order, iterate_batches
from core.engine.datasets.resident import ResidentDataset
from core.engine.determinism import random_state
from core.engine.evaluation.objective import Objective
from core.engine.evaluation.step_log import EpochLayout, StepLog
from core.engine.events import Kind
from core.engine.gradients.clip import Clip
from core.engine.gradients.closed_form import Gradient
from core.engine.liveness import ReportAlive
from core.engine.networks.network import Network
from core.engine.optimizers.stepper import Stepper
from core.engine.rate import Rate
from core.engine.weights.averaging import Collector, WeightAverage
from core.engine.weights.best import BestWeights
from core.engine.weights.ensemble import Ensemble
from core.engine.weights.snapshot import Incumbent
from core.engine.weights.swag import SwagPosterior
from core.recipe.shape import RunShape
from core.recipe.spec import JobSpec
from core.recipe.stopping import StopReason

Results = dict[str, dict[str, dict[str, float]]]


@dataclass(slots=True)
class TrainState:
    """Where the run is: the only thing besides the tensors that a step changes.

    `digest` chains the deterministic checkpoints, `metrics` are the latest evaluation's, `results` a finished
    run's. `stop_reason` is set once something ends the run before its budget. `seconds` is how long it had been trained
    when this attempt began.
    """

    step: int = 0
    digest: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    results: Results | None = None
    stop_reason: StopReason | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """All parts of one training, made and put where a checkpoint left them.

    `averages` go by the name that they have in series and results; `incumbent` is there if the schedule has cycles,
    `mark` if the job rolls back. `resume` says how faithful it is: {"fidelity":
    "exact" | "approximate", "reasons": […]}.
    """

    job: str
    spec: JobSpec
    shape: RunShape
    scratch: Path
    device: torch.device
    environment: dict[str, Any]
    data: ResidentDataset
    calendar: EpochLayout
    rate: Rate
    objective: Objective
    network: Network
    gradient: Gradient
    clip: Clip | None
    stepper: Stepper
    averages: dict[Kind, WeightAverage]
    swag: SwagPosterior | None
    ensemble: Ensemble | None
    best: BestWeights | None
    incumbent: Incumbent | None
    mark: RollbackPoint | None
    log: StepLog
    standing: TrainState
    report_alive: ReportAlive
    resume: dict[str, Any] | None = None

    def remaining_batches(self) -> Iterator[tuple[int, Batch]]:
        """(t, batch) of every step that is still to come; none once there are results."""
        spec, standing, calendar = self.spec, self.standing, self.calendar
        order = epoch_draws if spec.sampling == "with_replacement" else epoch_order
        cut = None if spec.batch_size == "full" else BatchSampler(calendar.batch, calendar.examples, order)
        last = calendar.total_steps if standing.results is None else standing.step
        return iterate_batches(self.data.train, cut, spec.seed, standing.step, last)

    def networks_to_evaluate(self) -> dict[str, Network]:
        """The networks that are evaluated, by what they are called in results."""
        ready: dict[str, Network] = {
            name: each.averaged_network() for name, each in self.averages.items() if each.ready
        }
        return {"base": self.stepper.eval_network(), **ready}

    def networks_to_test(self) -> dict[str, Network]:
        """The networks that are tested: the best weights stand in for the last ones when the job restores them."""
        found, best, incumbent = self.networks_to_evaluate(), self.best, self.incumbent
        if incumbent and incumbent.step is not None:
            found["incumbent"] = incumbent.network
        if best and best.step is not None:
            found["best"] = best.network
        if best and best.restores_best:
            found[best.weights] = best.network
        return found

    @property
    def collectors(self) -> tuple[Collector, ...]:
        """All that takes in weights as they are visited; SWAG after the mean that it looks at."""
        others = (self.swag, self.ensemble)
        return (*self.averages.values(), *(each for each in others if each))

    @property
    def stateful_parts(self) -> tuple[Stateful, ...]:
        """Every part with a state of its own."""
        optional: tuple[Stateful | None, ...] = (self.best, self.incumbent, self.mark)
        return (self.stepper, self.rate, *self.collectors, *(each for each in optional if each), self.log)

    def state_tensors(self) -> dict[str, Tensor]:
        """What training needs besides the weights to go on as if nothing had happened."""
        kept = [keeper.tensors() for keeper in self.stateful_parts]
        return {name: tensor for part in (*kept, random_state(self.device)) for name, tensor in part.items()}

    def is_finite(self) -> bool:
        """Whether weights, buffers, optimizer state and averages are all finite numbers."""
        floats = [*self.network.floats(), *(each for each in self.state_tensors().values() if each.is_floating_point())]
        return bool(torch.stack([each.isfinite().all().cpu() for each in floats]).all())
