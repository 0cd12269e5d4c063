"""All parts of one training run, and the state that its steps change."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.checkpoints.rollback import RollbackPoint
from core.engine.checkpoints.stateful import Stateful
from core.engine.datasets.batches import BatchSampler, iterate_batches, order_of
from core.engine.datasets.loaded import LoadedDataset
from core.engine.datasets.split import Batch, Split
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
    """Everything that a step changes besides the tensors.

    `step` counts complete optimizer steps. `digest` is the digest chain over the deterministic checkpoints. `metrics`
    are those of the latest evaluations, `results` those of a finished run: results[weights][split][metric].
    `stop_reason` is set when a condition ends the run before its budget. `seconds` is the training time of earlier
    attempts.
    """

    step: int = 0
    digest: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    results: Results | None = None
    stop_reason: StopReason | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """All parts of one training run, built and restored.

    `averages` have the names that series and results use. `incumbent` exists if the schedule has cycles, `mark` if the
    spec has a rollback. `resume` is None or {"fidelity": "exact" | "approximate", "reasons": […]}.
    """

    job: str
    spec: JobSpec
    shape: RunShape
    scratch: Path
    device: torch.device
    environment: dict[str, Any]
    data: LoadedDataset[Split]
    epoch_layout: EpochLayout
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
    train_state: TrainState
    report_alive: ReportAlive
    resume: dict[str, Any] | None = None

    def remaining_batches(self) -> Iterator[tuple[int, Batch]]:
        """(t, batch) of every remaining step; none if the run has results already."""
        spec, train_state, epoch_layout = self.spec, self.train_state, self.epoch_layout
        cut = (
            None
            if spec.batch_size == "full"
            else BatchSampler(epoch_layout.batch, epoch_layout.examples, order_of(spec))
        )
        last = epoch_layout.total_steps if train_state.results is None else train_state.step
        return iterate_batches(self.data.train, cut, spec.seed, train_state.step, last)

    def networks_to_evaluate(self) -> dict[str, Network]:
        """The networks that are evaluated, by their names in results: base, and every average that is ready."""
        ready: dict[str, Network] = {
            name: each.averaged_network() for name, each in self.averages.items() if each.ready
        }
        return {"base": self.stepper.eval_network(), **ready}

    def networks_to_test(self) -> dict[str, Network]:
        """The networks that are tested, by their names in results; restored best weights replace the last ones."""
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
        """Every part that collects weights during training; SWAG comes after the mean that it reads."""
        others = (self.swag, self.ensemble)
        return (*self.averages.values(), *(each for each in others if each))

    @property
    def stateful_parts(self) -> tuple[Stateful, ...]:
        """Every part that has state: all of it is in checkpoints."""
        optional: tuple[Stateful | None, ...] = (self.best, self.incumbent, self.mark)
        return (self.stepper, self.rate, *self.collectors, *(each for each in optional if each), self.log)

    def state_tensors(self) -> dict[str, Tensor]:
        """The training state besides the weights, random state included: an exact resume needs these tensors."""
        kept = [keeper.tensors() for keeper in self.stateful_parts]
        return {name: tensor for part in (*kept, random_state(self.device)) for name, tensor in part.items()}

    def is_finite(self) -> bool:
        """Whether weights, buffers, optimizer state and averages are all finite."""
        floats = [*self.network.floats(), *(each for each in self.state_tensors().values() if each.is_floating_point())]
        return bool(torch.stack([each.isfinite().all().cpu() for each in floats]).all())
