"""Resume, fine-tuning and rollback: load stored tensors into the parts of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from core.engine.checkpoints.files import REMEDY, check_tensors, read_resume, read_tensors
from core.engine.checkpoints.rollback import RollbackPoint
from core.engine.checkpoints.stateful import Stateful, own_tensors
from core.engine.datasets.loaded import FITTED
from core.engine.determinism import GENERATORS, HOST_GENERATOR, random_state, restore_random_state
from core.engine.environment import environment_differences
from core.engine.evaluation.step_log import EpochLayout
from core.engine.failure import EngineError
from core.engine.run import Run, TrainState
from core.recipe.assignment import Resume
from core.recipe.spec import JobSpec


def read_train_state(resume: Resume, epoch_layout: EpochLayout) -> TrainState:
    """The train state in a checkpoint's manifest. Raises EngineError if the manifest does not fit the job."""
    manifest = resume.manifest
    try:
        train_state = TrainState(
            step=manifest["step"],
            digest=manifest["digest"],
            metrics=dict(manifest["metrics"]),
            results=manifest["results"] if resume.anew is None else None,
            stop_reason=manifest["stop_reason"] if resume.anew is None else None,
            seconds=manifest["seconds"],
        )
        fits = manifest["kind"] == "last" and 0 <= train_state.step <= epoch_layout.total_steps
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("engine_error", f"the checkpoint's manifest cannot be used: {error!r}", REMEDY) from error
    if not fits:
        raise EngineError(
            "engine_error", f"a {manifest['kind']} checkpoint of step {train_state.step} does not fit this job", REMEDY
        )
    return train_state


def resume_fidelity(spec: JobSpec, resume: Resume | None, environment: dict[str, Any]) -> dict[str, Any] | None:
    """Whether a resume computes the same bits as an uninterrupted run would; None for a fresh run that is exact.

    A run with a time limit (`seconds`) is approximate from its start.
    """
    reasons = environment_differences(resume.manifest.get("environment", {}), environment) if resume else []
    if spec.seconds is not None:
        reasons.append(f"seconds: {spec.seconds:g} on another machine, or at another time, are another number of steps")
    if not resume and not reasons:
        return None
    return {"fidelity": "approximate" if reasons else "exact", "reasons": reasons}


def restore_run(run: Run, resume: Resume | None, initial: Path | None) -> None:
    """Load a checkpoint or initial weights into a fresh run; without either it keeps the weights of its seed."""
    if resume:
        load_checkpoint(run, resume)
    elif initial:
        load_initial_weights(run, initial)


def load_checkpoint(run: Run, resume: Resume) -> None:
    """Load a checkpoint's tensors into the parts of a fresh run, in place."""
    weights, state = read_resume(resume, run.report_alive)
    check_tensors("weights", weights, {**run.network.module.state_dict(), **run.data.standardize_tensors()})
    if resume.anew:
        prefixes = tuple(f"{name}." for name in resume.anew)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    if run.ensemble and "ensemble" in (resume.anew or ()):
        run.ensemble.begin_after(run.train_state.step)
    keepers = tuple(each for each in run.stateful_parts if each.prefix.removesuffix(".") not in (resume.anew or ()))
    _load_tensors(run, keepers, {name: weights[name] for name in run.network.tensors()}, state)


def load_initial_weights(run: Run, weights: Path) -> None:
    """Load weights and batch-norm statistics of another run's checkpoint; standardisation stays that of the data."""
    found = {name: each for name, each in read_tensors(weights).items() if not name.startswith(FITTED)}
    check_tensors("weights", found, run.network.tensors())
    run.network.load_tensors(found)


def load_rollback_point(run: Run, mark: RollbackPoint) -> None:
    """Restore everything but `mark` itself to the state in `mark`, count one more rollback, and lower the rates."""
    rollbacks, there = run.rate.rollbacks + 1, mark.train_state
    run.train_state.step, run.train_state.digest, run.train_state.metrics = (
        there["step"],
        there["digest"],
        there["metrics"],
    )
    run.train_state.results = run.train_state.stop_reason = None
    _load_tensors(run, tuple(keeper for keeper in run.stateful_parts if keeper is not mark), mark.weights, mark.state)
    run.rate.roll_back(rollbacks, run.train_state.step)
    run.log.restart_at(run.train_state.step)


def _load_tensors(
    run: Run, keepers: Sequence[Stateful], weights: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """Check and load weights and state; the random state comes last of all.

    A checkpoint from another kind of device has generators that this device lacks, or lacks one of this device's. Such
    a generator keeps the state that the seed gave it, and the run is reported as approximate.
    """
    here = random_state(run.device)
    state = {name: each for name, each in state.items() if name in here or not name.startswith(GENERATORS)}
    state = {**{name: each for name, each in here.items() if name != HOST_GENERATOR}, **state}
    expected: dict[str, Tensor] = dict(here)
    for keeper in keepers:
        expected |= keeper.expected(own_tensors(keeper, state), run.train_state.step)
    check_tensors("state", state, expected)
    run.network.load_tensors(weights)
    for keeper in keepers:
        keeper.restore(own_tensors(keeper, state))
    restore_random_state(run.device, dict(state))
