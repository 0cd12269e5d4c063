"""From an assignment to everything that the loop uses."""

from collections.abc import Callable
from functools import partial

import torch

from core.engine.checkpoints.resume import fidelity, place, read_standing
from core.engine.checkpoints.rollback import Mark
from core.engine.datasets.resident import Part, load_resident
from core.engine.determinism import open_device, seed_device
from core.engine.environment import describe
from core.engine.evaluation.objective import build_objective
from core.engine.evaluation.point_log import PointLog
from core.engine.evaluation.step_log import Calendar, StepLog
from core.engine.events import Kind
from core.engine.failure import EngineError
from core.engine.gradients.clip import build_clip
from core.engine.gradients.gradient import build_gradient
from core.engine.gradients.sam import sharpness_aware
from core.engine.liveness import ReportAlive, unwatched
from core.engine.networks.network import Network, build_network
from core.engine.optimizers.eval_weights import Elsewhere
from core.engine.optimizers.stepper import build_stepper
from core.engine.pacing import paced
from core.engine.rate import Rate
from core.engine.run import Run, Standing
from core.engine.weights.averaging import Average, ExponentialMean, RunningMean
from core.engine.weights.best import Best
from core.engine.weights.ensemble import Ensemble
from core.engine.weights.snapshot import Incumbent
from core.engine.weights.swag import Gaussian
from core.recipe.assignment import Assignment
from core.recipe.duration import RunLength
from core.recipe.learning_rate import course_of
from core.recipe.plan import MOST_AT_ONCE, ExecutionPlan
from core.recipe.shape import RunShape
from core.recipe.spec import JobSpec


def build(assignment: Assignment, report_alive: ReportAlive = unwatched) -> Run:
    """Every part by its own pure function; a resume comes last, and its random state last of all."""
    shape, plan = assignment.spec.shape(), assignment.plan
    spec = assignment.spec.resolved(shape)
    check_plan(plan)
    device = open_device(plan)
    report_alive = paced(report_alive, device)
    data = load_resident(spec.data, assignment.dataset, device, plan.dataset_sha256, report_alive)
    another = networks(spec, plan, device, report_alive)
    network = another()
    objective = build_objective(spec, data.target_scale)
    calendar = Calendar(shape.examples_per_epoch, shape.batch * spec.accumulate, shape.run.total_steps)
    course, stopping, rollback = course_of(spec, shape.run), spec.early_stopping, spec.rollback
    rate = Rate(course, rollback.factor if rollback else 1.0)
    averages, swag = build_averages(spec, shape, network, another, data.train)
    stepper = build_stepper(spec.optimizer, network, partial(Elsewhere, network, another, data.train, shape.batch))
    environment, resume = describe(device, plan, spec.optimizer, stepper.roles()), assignment.resume
    standing = read_standing(resume, calendar) if resume else Standing()
    gradient = build_gradient(network, objective.loss, micro=shape.batch if spec.accumulate > 1 else None)
    if spec.sam:
        gradient = sharpness_aware(gradient, network, spec.sam, lambda: standing.step)
    run = Run(
        job=assignment.job,
        spec=spec,
        shape=shape,
        scratch=assignment.scratch,
        device=device,
        environment=environment,
        data=data,
        calendar=calendar,
        rate=rate,
        objective=objective,
        network=network,
        gradient=gradient,
        clip=build_clip(spec.clip_grad, network.gradient),
        stepper=stepper,
        averages=averages,
        swag=swag,
        ensemble=build_ensemble(spec, shape.run, another),
        best=Best(stopping, another(), stopping.start_from.steps(shape.run)) if stopping else None,
        incumbent=Incumbent(another(), course.cycles) if next(course.cycles(), None) else None,
        mark=Mark(rollback) if rollback else None,
        log=build_log(spec, calendar, rate, standing.step, network),
        standing=standing,
        report_alive=report_alive,
        resume=fidelity(spec, resume, environment),
    )
    network.module.train()
    seed_device(device, spec.seed)
    place(run, resume, assignment.initial)
    return run


def networks(
    spec: JobSpec, plan: ExecutionPlan, device: torch.device, report_alive: ReportAlive
) -> Callable[[], Network]:
    """Makes the job's network, with the weights of its seed, as often as one asks."""
    most, facts = plan.micro_batch or MOST_AT_ONCE, spec.data.facts()
    made = partial(build_network, spec.model, facts, spec.seed, device, spec.no_decay)
    return partial(made, most_at_once=most, report_alive=report_alive)


def build_averages(
    spec: JobSpec, shape: RunShape, network: Network, another: Callable[[], Network], train: Part
) -> tuple[dict[Kind, Average], Gaussian | None]:
    """The averages of `network` that the job asks for, by name, and SWAG, which looks at the mean of one of them."""
    run = shape.run
    averages: dict[Kind, Average] = {}
    swag = None
    if spec.swa:
        phase = spec.swa.phase(run, spec.optimizer.lr)
        lender = None if spec.swa.update_bn else network
        averages["swa"] = mean = RunningMean(phase.occasions, another(), train, shape.batch, lender)
        if spec.swa.swag:
            swag = Gaussian(spec.swa.swag, mean, another(), phase.occasions.count(run.total_steps), spec.seed)
    if spec.ema:
        lender = None if spec.ema.update_bn else network
        averages["ema"] = ExponentialMean(spec.ema.phase(run), another(), lender)
    return averages, swag


def build_ensemble(spec: JobSpec, run: RunLength, another: Callable[[], Network]) -> Ensemble | None:
    """Room for the members that there will be."""
    ensemble = spec.ensemble
    return Ensemble(ensemble.occasions(run), ensemble.kept(run), another()) if ensemble else None


def build_log(spec: JobSpec, calendar: Calendar, rate: Rate, first: int, network: Network) -> StepLog:
    """One that also keeps where the weights were, when they are coordinates with names."""
    if names := spec.model.coordinates:
        return PointLog(spec.log_every, calendar, rate, first, network, names)
    return StepLog(spec.log_every, calendar, rate, first)


def check_plan(plan: ExecutionPlan) -> None:
    """Refuse what this engine cannot honour, instead of computing something else."""
    if plan.compile:
        raise EngineError("engine_error", "the plan asks for compiled code", "Use a worker of the plan's release.")
