"""From an assignment to everything that the loop uses."""

from functools import partial

from core.engine.averaging import RunningMean
from core.engine.best import Best
from core.engine.clip import build_clip
from core.engine.datasets.resident import load_resident
from core.engine.determinism import open_device, seed_device
from core.engine.environment import describe
from core.engine.failure import EngineError
from core.engine.gradient import build_gradient
from core.engine.networks.network import build_network
from core.engine.objective import build_objective
from core.engine.rate import Rate
from core.engine.resume import fidelity, put_back, read_standing
from core.engine.run import Run, Standing
from core.engine.sharpness import sharpness_aware
from core.engine.steplog import Calendar, StepLog
from core.engine.steppers.elsewhere import Elsewhere
from core.engine.steppers.stepper import build_stepper
from core.recipe.assignment import Assignment
from core.recipe.plan import ExecutionPlan


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
    phase, rate, stopping = spec.swa_phase(), Rate(spec.learning_rate()), spec.early_stopping
    micro = spec.batch() if spec.accumulate > 1 else None
    elsewhere = partial(Elsewhere, network, another, data.train, spec.batch())
    stepper = build_stepper(spec.optimizer, network, elsewhere)
    environment, resume = describe(device, plan, spec.optimizer, stepper.roles()), assignment.resume
    standing = read_standing(resume, calendar) if resume else Standing()
    gradient = build_gradient(network, objective.loss, micro=micro)
    if spec.sam:
        gradient = sharpness_aware(gradient, network, spec.sam, lambda: standing.step)
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
        gradient=gradient,
        clip=build_clip(spec.clip_grad, network.gradient),
        stepper=stepper,
        averages={"swa": RunningMean(phase, another(), data.train, spec.batch())} if phase else {},
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
