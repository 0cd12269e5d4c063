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
from core.recipe.losses.cross_entropy import CrossEntropy
from core.recipe.losses.mse import MeanSquaredError
from core.recipe.metrics.accuracy import Accuracy
from core.recipe.metrics.r2 import R2
from core.recipe.models.logistic import Logistic
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.optimizers.sgd import SGD
from core.recipe.schedules.cosine import Cosine
from core.testing import check_dataset, check_loss, check_metric, check_model, check_optimizer, check_schedule
from core.testing.batches import make_batch
from core.testing.component import check_component
from core.testing.loss import check_loss_gradient, check_loss_sums, check_loss_values
from core.testing.metric import check_metric_sums, check_metric_values
from core.testing.model import TABLE, check_counts, check_weights
from core.testing.optimizer import WeightRule, check_formula, check_same_bits, check_state, of_each_weight
from core.testing.schedule import LR, RUN
from tests.support.careless import DrawingSpec, ForgetfulSpec, IdleSpec, MiscountedSpec, PlainSpec, WideSpec
from tests.support.measures import (
    AddedPairs,
    DetachedLoss,
    DrawingLoss,
    OrderedPairs,
    RelativeLoss,
    SingleSums,
    UnreducedLoss,
)
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
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # of plug-ins that Basin's tests need, and they do not
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


def log_loss(outputs: list[float], target: int) -> float:
    return math.log(sum(map(math.exp, outputs))) - outputs[target]


def explained(outputs: list[list[float]], targets: list[list[float]]) -> float:
    errors = sum((output[0] - target[0]) ** 2 for output, target in zip(outputs, targets, strict=True))
    mean = sum(target[0] for target in targets) / len(targets)
    return 1 - errors / sum((target[0] - mean) ** 2 for target in targets)


def share_correct(outputs: list[list[float]], targets: list[int]) -> float:
    pairs = zip(outputs, targets, strict=True)
    return sum(max(range(len(each)), key=each.__getitem__) == target for each, target in pairs) / len(targets)


def test_the_losses_and_metrics_that_are_built_in_keep_it() -> None:
    check_loss(CrossEntropy(), log_loss)
    check_loss(MeanSquaredError(), lambda outputs, target: (outputs[0] - target[0]) ** 2)
    check_metric(Accuracy(), share_correct)
    check_metric(R2(), explained)


def test_a_metric_of_whole_splits_keeps_it() -> None:
    batch = make_batch(OrderedPairs(), {})
    check_metric_values(OrderedPairs(), batch)
    check_metric_sums(OrderedPairs(), batch)


NUMBERS = make_batch(DrawingLoss(), {})
CLASSES = make_batch(SingleSums(), {})
BROKEN: dict[str, tuple[Callable[[], None], str]] = {
    "formula": (lambda: check_formula(PlainSpec(), partial(of_each_weight, doubled)), "after step 1 "),
    "draws": (lambda: check_same_bits(DrawingSpec()), "global generator of torch"),
    "state": (lambda: check_state(ForgetfulSpec()), "other bits"),
    "idle": (lambda: check_weights(IdleSpec(), TABLE), "no gradient reaches idle"),
    "wide": (lambda: check_weights(WideSpec(), TABLE), r"the outputs are \(4, 4\), not \(4, 3\)"),
    "count": (lambda: check_counts(MiscountedSpec(), TABLE), r"has 24 weights, and parameter_count\(\) says 23"),
    "heavy": (lambda: check_component(PlainSpec(), OptimizerSpec), "imports torch and numpy"),
    "schedule": (lambda: check_schedule(Cosine(), hyperbola), "step 1: "),
    "noise": (lambda: check_loss_values(DrawingLoss(), NUMBERS), "global generator of torch"),
    "unreduced": (lambda: check_loss_values(UnreducedLoss(), NUMBERS), r"examples are \(12, 1\), not \(12,\)"),
    "formula of a loss": (lambda: check_loss_values(CrossEntropy(), CLASSES, lambda *_: 1.0), "not 1.0"),
    "gradient": (lambda: check_loss_gradient(DetachedLoss(), NUMBERS), "finite differences give"),
    "micro-batches": (lambda: check_loss_sums(RelativeLoss(), NUMBERS), "it is no mean over examples"),
    "float32": (lambda: check_metric_values(SingleSums(), CLASSES), "the sums are torch.float32"),
    "formula of a metric": (lambda: check_metric_values(Accuracy(), CLASSES, lambda *_: 2.0), "not 2.0"),
    "blocks": (lambda: check_metric_sums(AddedPairs(), CLASSES), "set additive=False"),
}


@pytest.mark.parametrize("point", BROKEN)
def test_who_breaks_it_is_told_where(point: str) -> None:
    check, message = BROKEN[point]
    with pytest.raises(AssertionError, match=message):
        check()
