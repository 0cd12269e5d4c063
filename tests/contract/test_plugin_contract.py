"""The contract that ships with Basin: the example keeps it, and whoever breaks it in one point is told which."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from core.recipe.data.blobs import Blobs
from core.recipe.data.moons import Moons
from core.recipe.models.logistic import Logistic
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.optimizers.sgd import SGD
from core.recipe.schedules.cosine import Cosine
from core.testing import check_dataset, check_model, check_optimizer, check_schedule
from core.testing.component import check_component
from core.testing.model import TABLE, check_counts, check_weights
from core.testing.optimizer import WeightRule, check_formula, check_same_bits, check_state, of_each_weight
from core.testing.schedule import LR, RUN
from tests.support.careless import DrawingSpec, ForgetfulSpec, IdleSpec, MiscountedSpec, PlainSpec, WideSpec
from tests.support.plugins import EXAMPLE, install
from tests.support.service import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")


def sgd() -> WeightRule:
    return lambda w, g, lr: w - lr * g


def doubled() -> WeightRule:
    return lambda w, g, lr: w - 2 * lr * g


def cosine(t: int) -> float:
    return LR / 2 * (1 + math.cos(math.pi * t / RUN.total_steps))


def hyperbola(t: int) -> float:
    return LR / (t + 1)


def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    """Its own tests, as its author runs them: it is installed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", ".", "tests"],
        cwd=EXAMPLE,
        env={
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, install(EXAMPLE, tmp_path)))),
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert "8 passed" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]


def test_what_is_built_in_keeps_it() -> None:
    check_optimizer(SGD(), sgd)
    check_model(Logistic())
    check_schedule(Cosine(), cosine)
    check_dataset(Blobs(examples=60, features=5, classes=3))
    check_dataset(Moons(examples=60))


BROKEN: dict[str, tuple[Callable[[], None], str]] = {
    "formula": (lambda: check_formula(PlainSpec(), partial(of_each_weight, doubled)), "after step 1 "),
    "draws": (lambda: check_same_bits(DrawingSpec()), "global generator of torch"),
    "state": (lambda: check_state(ForgetfulSpec()), "other bits"),
    "idle": (lambda: check_weights(IdleSpec(), TABLE), "no gradient reaches idle"),
    "wide": (lambda: check_weights(WideSpec(), TABLE), r"the outputs are \(4, 4\), not \(4, 3\)"),
    "count": (lambda: check_counts(MiscountedSpec(), TABLE), r"has 24 weights, and parameter_count\(\) says 23"),
    "heavy": (lambda: check_component(PlainSpec(), OptimizerSpec), "imports torch and numpy"),
    "schedule": (lambda: check_schedule(Cosine(), hyperbola), "step 1: "),
}


@pytest.mark.parametrize("point", BROKEN)
def test_who_breaks_it_is_told_where(point: str) -> None:
    check, message = BROKEN[point]
    with pytest.raises(AssertionError, match=message):
        check()
