"""From an assignment to everything that the loop uses; and back to where a checkpoint stood."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.averaging import RunningMean
from core.engine.best import Best
from core.engine.checkpoint import REMEDY, check_tensors, read_resume
from core.engine.clip import Clip, build_clip
from core.engine.closedform import Gradient
from core.engine.datasets.ordering import Batch, Cut, batches, epoch_draws, epoch_order
from core.engine.datasets.resident import Resident, load_resident
from core.engine.determinism import open_device, random_state, restore_random_state, seed_device
from core.engine.environment import describe, differences
from core.engine.failure import EngineError
from core.engine.gradient import build_gradient
from core.engine.networks.network import Network, build_network
from core.engine.objective import Objective, build_objective
from core.engine.optimizer import Stepper, build_stepper, expected_state
from core.engine.steplog import Calendar, StepLog
from core.recipe.assignment import Assignment, Resume
from core.recipe.plan import ExecutionPlan
from core.recipe.spec import JobSpec

Results = dict[str, dict[str, dict[str, float]]]


@dataclass(slots=True)
class Standing:
    """Where the run is: the only thing besides the tensors that a step changes.

    `digest` chains the deterministic checkpoints, `metrics` are the latest evaluation's, `results` a finished
    run's.
    """

    step: int = 0
    digest: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    results: Results | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """All parts of one training, made and put where a checkpoint left them.

    `resume` says how faithful it is: {"fidelity": "exact" | "approximate", "reasons": […]}.
    """

    job: str
    spec: JobSpec
    scratch: Path
    device: torch.device
    environment: dict[str, Any]
    data: Resident
    calendar: Calendar
    rate: Callable[[int], float]
    objective: Objective
    network: Network
    gradient: Gradient
    clip: Clip | None
    stepper: Stepper
    swa: RunningMean | None
    best: Best | None
    log: StepLog
    standing: Standing
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
        swa = {"swa": self.swa.network()} if self.swa and self.swa.models else {}
        return {"base": self.network, **swa}

    def finalists(self) -> dict[str, Network]:
        """The networks that are tested: the best weights stand in for the last ones when the job restores them."""
        if self.best is None or self.best.step is None:
            return self.candidates()
        restored = {"base": self.best.network} if self.best.policy.restore_best else {}
        return self.candidates() | restored | {"best": self.best.network}

    def state(self) -> dict[str, Tensor]:
        """What training needs besides the weights to go on as if nothing had happened."""
        averages = self.swa.tensors() if self.swa else {}
        best = self.best.tensors() if self.best else {}
        return self.stepper.tensors() | averages | best | self.log.tensors() | random_state(self.device)

    def finite(self) -> bool:
        """Whether weights, buffers, optimizer state and averages are all finite numbers."""
        floats = [*self.network.floats(), *(each for each in self.state().values() if each.is_floating_point())]
        return bool(torch.stack([each.isfinite().all().cpu() for each in floats]).all())


def build(assignment: Assignment) -> Run:
    """Every part by its own pure function; a resume comes last, and its random state last of all."""
    spec, plan = assignment.spec.resolved(), assignment.plan
    check_plan(plan)
    device, facts = open_device(plan), spec.data.facts()
    data = load_resident(spec.data, assignment.dataset, device, plan.dataset_sha256)
    another = partial(build_network, spec.model, facts, spec.seed, device, spec.no_decay)
    network = another()
    objective = build_objective(spec, data.target_scale)
    calendar = Calendar(spec.examples_per_epoch(), spec.batch() * spec.accumulate, spec.run_length().total_steps)
    phase, rate, stopping = spec.swa_phase(), spec.learning_rate(), spec.early_stopping
    micro = spec.batch() if spec.accumulate > 1 else None
    environment, resume = describe(device, plan), assignment.resume
    standing = read_standing(resume, calendar) if resume else Standing()
    run = Run(
        job=assignment.job,
        spec=spec,
        scratch=assignment.scratch,
        device=device,
        environment=environment,
        data=data,
        calendar=calendar,
        rate=rate,
        objective=objective,
        network=network,
        gradient=build_gradient(network, objective.loss, micro=micro),
        clip=build_clip(spec.clip_grad, network.gradient),
        stepper=build_stepper(spec.optimizer, network.weights, network.undecayed),
        swa=RunningMean(phase, another(), data.train, spec.batch()) if phase else None,
        best=Best(stopping, another(), stopping.start_from.steps(spec.run_length())) if stopping else None,
        log=StepLog(spec.log_every, calendar, rate, standing.step),
        standing=standing,
        resume=fidelity(resume, environment) if resume else None,
    )
    network.module.train()
    seed_device(device, spec.seed)
    if resume:
        put_back(run, resume)
    return run


def check_plan(plan: ExecutionPlan) -> None:
    """Refuse what this engine cannot honour, instead of computing something else."""
    if plan.compile:
        raise EngineError("engine_error", "the plan asks for compiled code", "Use a worker of the plan's release.")


def read_standing(resume: Resume, calendar: Calendar) -> Standing:
    """The manifest's part of a resume."""
    manifest = resume.manifest
    try:
        standing = Standing(
            step=manifest["step"],
            digest=manifest["digest"],
            metrics=dict(manifest["metrics"]),
            results=manifest["results"],
        )
        fits = manifest["kind"] == "last" and 0 <= standing.step <= calendar.total_steps
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("engine_error", f"the checkpoint's manifest cannot be used: {error!r}", REMEDY) from error
    if not fits:
        raise EngineError(
            "engine_error", f"a {manifest['kind']} checkpoint of step {standing.step} does not fit this job", REMEDY
        )
    return standing


def fidelity(resume: Resume, environment: dict[str, Any]) -> dict[str, Any]:
    """Whether going on here computes the bits that the checkpoint's own machine would have."""
    reasons = differences(resume.manifest.get("environment", {}), environment)
    return {"fidelity": "approximate" if reasons else "exact", "reasons": reasons}


def put_back(run: Run, resume: Resume) -> None:
    """Load a checkpoint's tensors into the parts of a fresh run, in place."""
    weights, state = read_resume(resume)
    check_tensors("weights", weights, {**run.network.tensors(), **run.data.tensors()})
    flat, scalar = run.network.weights.detach(), torch.zeros(())
    optimizer = expected_state(run.spec.optimizer) if run.standing.step else set(run.stepper.tensors())
    of_optimizer = {name: scalar if state.get(name, flat).ndim == 0 else flat for name in optimizer}
    fixed = {name: tensor for name, tensor in run.state().items() if not name.startswith("optimizer.")}
    check_tensors("state", state, {**fixed, **of_optimizer})
    run.network.module.load_state_dict({name: weights[name] for name in run.network.tensors()})
    run.stepper.restore(state)
    run.log.restore(state)
    if run.swa:
        run.swa.restore(state)
    if run.best:
        run.best.restore(state)
    restore_random_state(run.device, state)
