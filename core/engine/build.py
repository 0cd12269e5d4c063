"""From an assignment to everything that the loop uses."""

from collections.abc import Callable
from functools import partial

import torch

from core.engine.checkpoints.resume import read_train_state, restore_run, resume_fidelity
from core.engine.checkpoints.rollback import RollbackPoint
from core.engine.datasets.load import load_dataset
from core.engine.datasets.split import Split
from core.engine.determinism import open_device, seed_device
from core.engine.environment import describe_environment
from core.engine.evaluation.objective import Objective, build_objective
from core.engine.evaluation.point_log import PointLog
from core.engine.evaluation.step_log import EpochLayout, StepLog
from core.engine.events import Kind
from core.engine.failure import EngineError
from core.engine.gradients.clip import build_clip
from core.engine.gradients.closed_form import Gradient
from core.engine.gradients.gradient import build_gradient
from core.engine.gradients.sam import sharpness_aware
from core.engine.liveness import ReportAlive, report_nothing
from core.engine.networks.network import Network, build_network
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.stepper import build_stepper
from core.engine.pacing import with_pacing
from core.engine.rate import Rate
from core.engine.run import Run, TrainState
from core.engine.weights.averaging import ExponentialMean, RunningMean, WeightAverage
from core.engine.weights.best import BestWeights
from core.engine.weights.ensemble import Ensemble
from core.engine.weights.snapshot import Incumbent
from core.engine.weights.swag import SwagPosterior
from core.recipe.assignment import Assignment
from core.recipe.duration import RunLength
from core.recipe.learning_rate import learning_rate_plan
from core.recipe.plan import MOST_AT_ONCE, ExecutionPlan
from core.recipe.shape import RunShape
from core.recipe.spec import JobSpec


def build_training_run(assignment: Assignment, report_alive: ReportAlive = report_nothing) -> Run:
    """Build every part by its own pure function; a checkpoint is restored last, and its random state last of all.

    Raises EngineError if the plan, the device, the data or the checkpoint cannot be used.
    """
    shape, plan = assignment.spec.shape(), assignment.plan
    spec, resume = assignment.spec.resolved(shape), assignment.resume
    check_plan(plan)
    device = open_device(plan)
    report_alive = with_pacing(report_alive, device)
    data = load_dataset(spec.data, assignment.dataset, device, plan, report_alive)
    make_network = network_factory(spec, plan, device, report_alive)
    network = make_network()
    objective = build_objective(spec, data.target_scale)
    epoch_layout = EpochLayout(shape.examples_per_epoch, shape.batch * spec.accumulate, shape.run.total_steps)
    lr_plan, stopping, rollback = learning_rate_plan(spec, shape.run), spec.early_stopping, spec.rollback
    rate = Rate(lr_plan, rollback.factor if rollback else 1.0)
    averages, swag = build_averages(spec, shape, network, make_network, data.train)
    stepper = build_stepper(
        spec.optimizer, network, partial(EvalWeights, network, make_network, data.train, shape.batch)
    )
    environment = describe_environment(device, plan, spec.optimizer, stepper.parameter_roles())
    train_state = read_train_state(resume, epoch_layout) if resume else TrainState()
    gradient = build_step_gradient(spec, shape, network, objective, lambda: train_state.step)
    run = Run(
        job=assignment.job,
        spec=spec,
        shape=shape,
        scratch=assignment.scratch,
        device=device,
        environment=environment,
        data=data,
        epoch_layout=epoch_layout,
        rate=rate,
        objective=objective,
        network=network,
        gradient=gradient,
        clip=build_clip(spec.clip_grad, network.gradient),
        stepper=stepper,
        averages=averages,
        swag=swag,
        ensemble=build_ensemble(spec, shape.run, make_network),
        best=BestWeights(stopping, make_network(), stopping.start_from.steps(shape.run)) if stopping else None,
        incumbent=Incumbent(make_network(), lr_plan.cycle_ends) if next(lr_plan.cycle_ends(), None) else None,
        mark=RollbackPoint(rollback) if rollback else None,
        log=build_log(spec, epoch_layout, rate, train_state.step, network),
        train_state=train_state,
        report_alive=report_alive,
        resume=resume_fidelity(spec, resume, environment),
    )
    network.module.train()
    seed_device(device, spec.seed)
    restore_run(run, resume, assignment.initial)
    return run


def build_step_gradient(
    spec: JobSpec, shape: RunShape, network: Network, objective: Objective, step: Callable[[], int]
) -> Gradient:
    """The gradient of a step's batches: at the weights or, with SAM, at the worst point near them."""
    gradient = build_gradient(network, objective.loss, micro=shape.batch if spec.accumulate > 1 else None)
    return sharpness_aware(gradient, network, spec.sam, step) if spec.sam else gradient


def network_factory(
    spec: JobSpec, plan: ExecutionPlan, device: torch.device, report_alive: ReportAlive
) -> Callable[[], Network]:
    """A function that builds the job's network with the initial weights of its seed; each call builds a new one."""
    most, facts = plan.micro_batch or MOST_AT_ONCE, spec.data.facts()
    made = partial(build_network, spec.model, facts, spec.seed, device, spec.no_decay)
    return partial(made, most_at_once=most, report_alive=report_alive)


def build_averages(
    spec: JobSpec, shape: RunShape, network: Network, make_network: Callable[[], Network], train: Split
) -> tuple[dict[Kind, WeightAverage], SwagPosterior | None]:
    """The weight averages of the job by name (swa, ema), and SWAG, which collects deviations from the mean of swa."""
    run = shape.run
    averages: dict[Kind, WeightAverage] = {}
    swag = None
    if spec.swa:
        phase = spec.swa.phase_in_run(run, spec.optimizer.lr)
        bn_source = None if spec.swa.update_bn else network
        averages["swa"] = mean = RunningMean(phase.collection_steps, make_network(), train, shape.batch, bn_source)
        if spec.swa.swag:
            swag = SwagPosterior(
                spec.swa.swag, mean, make_network(), phase.collection_steps.count_until(run.total_steps), spec.seed
            )
    if spec.ema:
        bn_source = None if spec.ema.update_bn else network
        averages["ema"] = ExponentialMean(spec.ema.phase_in_run(run), make_network(), bn_source)
    return averages, swag


def build_ensemble(spec: JobSpec, run: RunLength, make_network: Callable[[], Network]) -> Ensemble | None:
    """The ensemble of the job, with memory for all of its members; None if the spec has none."""
    ensemble = spec.ensemble
    return Ensemble(ensemble.collection_steps(run), ensemble.member_count(run), make_network()) if ensemble else None


def build_log(spec: JobSpec, epoch_layout: EpochLayout, rate: Rate, first: int, network: Network) -> StepLog:
    """The log of the steps. A model whose weights are named coordinates gets one that logs the coordinates too."""
    if names := spec.model.coordinate_names:
        return PointLog(spec.log_every, epoch_layout, rate, first, network, names)
    return StepLog(spec.log_every, epoch_layout, rate, first)


def check_plan(plan: ExecutionPlan) -> None:
    """Raises EngineError for a plan that this engine cannot execute: it would compute other bits."""
    if plan.compile:
        raise EngineError("engine_error", "the plan asks for compiled code", "Use a worker of the plan's release.")
