"""The gradient noise scale against what it estimates."""

import math
from typing import Any

import pytest
import torch

from core.engine.analysis.gradient_noise import batch_size_tradeoff, estimate_noise_scale, exact_noise
from core.engine.analysis.loss_surface import LossSurface
from core.engine.evaluation.evaluate import eval_mode
from core.errors import InvalidSpec
from core.recipe.analyses.gradient_noise import GradientNoise
from tests.support.specs import analysis_of
from tests.train.looks import JOB, Look, kept
from tests.train.runs import Train, Watcher, job, no_trace
from tests.train.tiny import classifier

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("convolution", [False, True])
def test_the_exact_values_are_those_of_single_examples(*, convolution: bool) -> None:
    """One backward pass for each example through the network itself; it stays as it was."""
    subject = classifier(batch_norm=True, convolution=convolution, examples=23)
    network, part = subject.network, subject.parts["train"]
    before = {name: each.clone() for name, each in network.tensors().items()}
    singles = []
    for place in range(23):
        network.gradient.zero_()
        with eval_mode(network.module), torch.enable_grad():
            outputs = network.forward(part.inputs[place : place + 1])
            subject.objective.loss(outputs, part.targets[place : place + 1]).backward()
        singles.append(network.gradient.clone())
    single = torch.stack(singles)
    with no_trace():
        found = exact_noise(subject, LossSurface(network, part, subject.objective.loss))
    assert found[0] == pytest.approx(float(single.mean(0).square().sum()))
    assert found[1] == pytest.approx(float(single.var(0, correction=0).sum()))
    assert all(torch.equal(each, before[name]) for name, each in network.tensors().items())


def noisy(**fields: Any) -> Any:
    """½ (x² + 3 y²) at (1, 2): G = (1, 6), and every example adds (±0.5, 0) or (0, ±0.5), so S = ¼."""
    data = {"name": "function", "function": "quadratic", "h": [1.0, 3.0], "noise": {"scale": 0.5, "examples": 40}}
    return job(model={"name": "point", "start": [1.0, 2.0]}, data=data, batch_size=4, **fields)


def test_on_the_playground_everything_is_known(look: Look) -> None:
    """B = ¼ / 37; the estimate is some of its own errors away at most."""
    with no_trace():
        found = look([(noisy(), None)], kind="gradient_noise", draws=200).numbers
    (place,) = found["places"]
    assert place["exact"] == {
        "gradient": pytest.approx(37.0),
        "variance": pytest.approx(0.25, rel=1e-4),
        "scale": pytest.approx(0.25 / 37, rel=1e-4),
    }
    assert place["gradient"] == pytest.approx(37.0, rel=0.02)
    assert abs(place["scale"] - 0.25 / 37) < 4 * place["error"]
    assert 0 < place["error"] < 0.1 * place["scale"]
    assert found["advice"][1].startswith("Batches of 4 are well above it")


def test_the_estimator_over_a_run(run: Train, look: Look) -> None:
    """At every checkpoint within four errors of the exact value; and the advice comes with its doubt."""
    spec = job(epochs=6, checkpoints={"every": "8st", "keep_last": 9})
    written = run(spec)[1].checkpoints()
    assert sorted(written) == [8, 16, 24, 32, 40, 48]
    pairs = [(spec, written[step]) for step in sorted(written)]
    found = look(pairs, kind="gradient_noise", places=3, draws=100).numbers
    assert [each["step"] for each in found["places"]] == [8, 24, 48]
    for each in found["places"]:
        assert abs(each["scale"] - each["exact"]["scale"]) < 4 * each["error"]
        assert each["error"] < 0.5 * each["scale"]
    assert found["advice"][-1].startswith("This is a rough guide")
    assert [each["batch_size"] for each in found["tradeoff"]] == [6, 12, 24, 48, 96]


def test_the_estimator_is_unbiased_by_hand() -> None:
    """|g|² = 4 + 12 / b in every draw gives G² = 4 and S = 12, whatever the sizes, with no error at all."""
    spec = GradientNoise(job=JOB, small=2, large=6, draws=10)
    found = estimate_noise_scale(spec, torch.tensor([[4 + 12 / 2, 4 + 12 / 6]] * 10, dtype=torch.float64))
    assert found == pytest.approx((4.0, 12.0, 3.0, 0.0), abs=1e-12)
    lost = estimate_noise_scale(spec, torch.tensor([[6.0, 1.9]] * 10, dtype=torch.float64))
    assert lost.square < 0
    assert math.isnan(lost.scale)


def test_what_another_batch_would_cost() -> None:
    """At B = scale: half the batch takes 1.5 times the steps and ¾ of the examples."""
    half, same, double = batch_size_tradeoff(8, 8.0)[1:4]
    assert (half["steps"], half["examples"], half["lr"]) == pytest.approx((1.5, 0.75, 2 / 3))
    assert set(same.values()) == {8, 1.0}
    assert (double["steps"], double["examples"], double["lr"]) == pytest.approx((0.75, 1.5, 4 / 3))


def test_it_stops_anywhere_and_goes_on_to_the_same_bits(run: Train, look: Look) -> None:
    """Between draws and between checkpoints; a cancel keeps the estimate so far."""
    spec = job(epochs=2, checkpoints={"every": "8st", "keep_last": 9})
    pairs = [(spec, each) for _, each in sorted(run(spec)[1].checkpoints().items())]
    fields = {"kind": "gradient_noise", "draws": 10}
    whole = look(pairs, **fields)
    for tiles in (4, 11, 15):
        stopped = look(pairs, Watcher(stop_after=tiles), **fields)
        (written,) = stopped.watcher.checkpoints().values()
        resumed = look(pairs, resume=kept(written), **fields)
        assert resumed.numbers == whole.numbers
        assert all(resumed.arrays[name].tobytes() == each.tobytes() for name, each in whole.arrays.items())
    cancelled = look(pairs, Watcher(stop_after=15, request="cancel"), **fields).numbers
    assert cancelled["places"][0] == whole.numbers["places"][0]
    assert cancelled["places"][1]["exact"] is None


def test_which_checkpoints_and_which_batches() -> None:
    """Evenly spread, both ends among them; a large batch is made of small ones."""
    assert GradientNoise(job=JOB, places=3).chosen_checkpoints(9) == [0, 4, 8]
    assert GradientNoise(job=JOB, places=3).chosen_checkpoints(2) == [0, 1]
    assert GradientNoise(job=JOB, places=1).chosen_checkpoints(5) == [4]
    for wrong in ({"small": 8, "large": 8}, {"small": 3, "large": 64}, {"draws": 1}, {"weights": "swa"}):
        with pytest.raises(InvalidSpec):
            analysis_of({"kind": "gradient_noise", "job": JOB, **wrong})
