"""One training, as the parts that it is made of."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.checkpoints.rollback import Mark
from core.engine.checkpoints.stateful import Keeper
from core.engine.datasets.batches import Batch, Cut, batches, epoch_draws, epoch_order
from core.engine.datasets.resident import Resident
from core.engine.determinism import random_state
from core.engine.evaluation.objective import Objective
from core.engine.evaluation.step_log import Calendar, StepLog
from core.engine.events import Kind
from core.engine.gradients.clip import Clip
from core.engine.gradients.closed_form import Gradient
from core.engine.liveness import ReportAlive
from core.engine.networks.network import Network
from core.engine.optimizers.stepper import Stepper
from core.engine.rate import Rate
from core.engine.weights.averaging import Average, Collector
from core.engine.weights.best import Best
from core.engine.weights.ensemble import Ensemble
from core.engine.weights.snapshot import Incumbent
from core.engine.weights.swag import Gaussian
from core.recipe.shape import RunShape
from core.recipe.spec import JobSpec
from core.recipe.stopping import StopReason

Results = dict[str, dict[str, dict[str, float]]]


@dataclass(slots=True)
class Standing:
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
    data: Resident
    calendar: Calendar
    rate: Rate
    objective: Objective
    network: Network
    gradient: Gradient
    clip: Clip | None
    stepper: Stepper
    averages: dict[Kind, Average]
    swag: Gaussian | None
    ensemble: Ensemble | None
    best: Best | None
    incumbent: Incumbent | None
    mark: Mark | None
    log: StepLog
    standing: Standing
    report_alive: ReportAlive
    resume: dict[str, Any] | None = None

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """(t, batch) of every step that is still to come; none once there are results."""
        spec, standing, calendar = self.spec, self.standing, self.calendar
        order = epoch_draws if spec.sampling == "with_replacement" else epoch_order
        cut = None if spec.batch_size == "full" else Cut(calendar.batch, calendar.examples, order)
        last = calendar.total_steps if standing.results is None else standing.step
        return batches(self.data.train, cut, spec.seed, standing.step, last)

    def candidates(self) -> dict[str, Network]:
        """The networks that are evaluated, by what they are called in results."""
        ready: dict[str, Network] = {name: each.network() for name, each in self.averages.items() if each.ready}
        return {"base": self.stepper.presented(), **ready}

    def finalists(self) -> dict[str, Network]:
        """The networks that are tested: the best weights stand in for the last ones when the job restores them."""
        found, best, incumbent = self.candidates(), self.best, self.incumbent
        if incumbent and incumbent.step is not None:
            found["incumbent"] = incumbent.network
        if best and best.step is not None:
            found["best"] = best.network
        if best and best.restores:
            found[best.weights] = best.network
        return found

    @property
    def collectors(self) -> tuple[Collector, ...]:
        """All that takes in weights as they are visited; SWAG after the mean that it looks at."""
        others = (self.swag, self.ensemble)
        return (*self.averages.values(), *(each for each in others if each))

    @property
    def keepers(self) -> tuple[Keeper, ...]:
        """Every part with a state of its own."""
        optional: tuple[Keeper | None, ...] = (self.best, self.incumbent, self.mark)
        return (self.stepper, self.rate, *self.collectors, *(each for each in optional if each), self.log)

    def state(self) -> dict[str, Tensor]:
        """What training needs besides the weights to go on as if nothing had happened."""
        kept = [keeper.tensors() for keeper in self.keepers]
        return {name: tensor for part in (*kept, random_state(self.device)) for name, tensor in part.items()}

    def finite(self) -> bool:
        """Whether weights, buffers, optimizer state and averages are all finite numbers."""
        floats = [*self.network.floats(), *(each for each in self.state().values() if each.is_floating_point())]
        return bool(torch.stack([each.isfinite().all().cpu() for each in floats]).all())
