"""Back to where a checkpoint stood."""

from typing import Any

from torch import Tensor

from core.engine.checkpoint import REMEDY, check_tensors, read_resume
from core.engine.determinism import random_state, restore_random_state
from core.engine.environment import differences
from core.engine.failure import EngineError
from core.engine.keeper import owned
from core.engine.run import Run, Standing
from core.engine.steplog import Calendar
from core.recipe.assignment import Resume


def read_standing(resume: Resume, calendar: Calendar) -> Standing:
    """The manifest's part of a resume."""
    manifest = resume.manifest
    try:
        standing = Standing(
            step=manifest["step"],
            digest=manifest["digest"],
            metrics=dict(manifest["metrics"]),
            results=manifest["results"],
            stop_reason=manifest["stop_reason"],
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
    """Load a checkpoint's tensors into the parts of a fresh run, in place; the random state last of all."""
    weights, state = read_resume(resume)
    check_tensors("weights", weights, {**run.network.tensors(), **run.data.tensors()})
    expected: dict[str, Tensor] = dict(random_state(run.device))
    for keeper in run.keepers:
        expected |= keeper.expected(owned(keeper, state), run.standing.step)
    check_tensors("state", state, expected)
    run.network.module.load_state_dict({name: weights[name] for name in run.network.tensors()})
    for keeper in run.keepers:
        keeper.restore(owned(keeper, state))
    restore_random_state(run.device, state)
