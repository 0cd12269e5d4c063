"""Measures of sharpness: closed forms, what rescaling does to them, and what an attempt leaves behind."""

import math
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from core.engine.analysis.progress import AnalysisProgress
from core.engine.analysis.sharpness import compute_tensors, report_numbers
from core.engine.analysis.sharpness_measures import GAUGES, LossAtWeights, Measurement
from core.engine.analysis.subject import AnalysisSubject
from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.objective import Classification
from core.engine.events import CheckpointWritten
from core.recipe.analyses.sharpness import Measure, Sharpness
from core.recipe.spec import JobSpec
from tests.train.looks import JOB, Look, kept
from tests.train.runs import Train, Watcher, job, no_trace
from tests.train.tiny import Bench, at, subject

pytestmark = pytest.mark.usefixtures("one_thread")

ALL: list[Measure] = [
    "gradient_norm",
    "filter_noise",
    "multiplicative_noise",
    "eigenvalues",
    "trace",
    "worst_case",
    "adaptive_worst_case",
]
CURVATURES = torch.tensor([4.0, 1.0, 0.25, -0.5], dtype=torch.float64)


def measured(measure: Measure, looked_at: AnalysisSubject, **fields: Any) -> list[Measurement]:
    """All units of a measure, in order."""
    spec = Sharpness(job=JOB, measures=(measure,), **fields)
    gauge, ground = GAUGES[measure](spec), LossAtWeights(looked_at, spec.seed)
    state = gauge.initial_state(ground)
    for unit in range(gauge.units):
        gauge.compute_unit(ground, state, unit)
    return gauge.final_measurements(ground, state)


def bowl(x: Tensor) -> Tensor:
    return (CURVATURES * x**2).sum() / 2


def test_of_a_quadratic_they_are_what_its_curvatures_say() -> None:
    """½ Σ h x² at 0: steepest rise ½ h rho² along the first axis; nothing is estimated where P is small."""
    bottom, slope = at([0.0] * 4, bowl), at([1.0, 2.0, -1.0, 0.0], bowl)
    assert measured("gradient_norm", slope)[0].value == pytest.approx(math.sqrt(16 + 4 + 0.0625))
    highest, lowest = measured("eigenvalues", bottom)
    assert (highest.value, lowest.value) == (pytest.approx(4.0), pytest.approx(-0.5))
    assert max(highest.error, lowest.error) < 1e-12
    assert measured("trace", bottom)[0][:2] == (pytest.approx(4.75), 0.0)
    worst = measured("worst_case", bottom, rho=0.5, ascent_steps=60)[0]
    assert worst.value == pytest.approx(4.0 * 0.5**2 / 2, rel=1e-2)
    assert worst.value <= 0.5 + 1e-12
    assert measured("adaptive_worst_case", bottom)[0].value == 0.0  # no weight has a size


def test_the_adaptive_ball_is_measured_in_sizes() -> None:
    """At w = (3, 0, 0, 0) only the first weight may move, by rho · 3: it rises by 2 ((3 + 3 rho)² - 9)."""
    found = measured("adaptive_worst_case", at([3.0, 0.0, 0.0, 0.0], bowl), adaptive_rho=0.2)[0]
    assert found.value == pytest.approx(2 * (3.6**2 - 9), rel=1e-9)


def test_hutchinson_against_the_true_trace() -> None:
    """Of a full matrix in more dimensions than probes; the true trace is some standard errors away at most."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        half = torch.randn(60, 60, dtype=torch.float64)
    matrix = half + half.T
    found = measured("trace", at([0.0] * 60, lambda x: x @ matrix @ x / 2), probes=50)[0]
    off_diagonal = (matrix - torch.diag(torch.diag(matrix))).square().sum()
    assert abs(found.value - float(torch.trace(matrix))) < 4 * found.error
    assert found.error == pytest.approx(math.sqrt(2 * off_diagonal / 50), rel=0.3)  # Var = 2 Σ off-diagonal²


def rectifier(scale: float) -> AnalysisSubject:
    """A ReLU network with its first layer times `scale` and its second divided by it: the same function."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
        train = TensorSplit(torch.randn(40, 6, dtype=torch.float64), torch.randint(0, 3, (40,)))
    with torch.no_grad():
        for parameter in module[0].parameters():
            parameter.mul_(scale)
        module[2].weight.div_(scale)
    return subject(module, train, Classification(()))


@pytest.mark.parametrize("scale", [10.0, 0.1])
def test_what_rescaling_changes_and_what_it_does_not(scale: float) -> None:
    """Filter by filter and weight by weight the rises are the same to 1e-12; curvature is another."""
    plain, scaled = rectifier(1.0), rectifier(scale)
    for measure in ("filter_noise", "multiplicative_noise", "adaptive_worst_case"):
        before, after = measured(measure, plain)[0], measured(measure, scaled)[0]
        assert abs(before.value) > 1e-3
        assert after.value == pytest.approx(before.value, abs=1e-12)
        assert after.error == pytest.approx(before.error, abs=1e-12)
    before, after = (measured("eigenvalues", each, lanczos_steps=60)[0] for each in (plain, scaled))
    assert after.value > 2 * before.value


Trained = tuple[JobSpec, CheckpointWritten]


def trained(run: Train, **fields: Any) -> Trained:
    spec = job(**fields)
    return spec, run(spec)[1].checkpoints()[spec.shape().run.total_steps]


def test_side_by_side_with_what_belongs_to_them(run: Train, look: Look) -> None:
    """Every measure has a value, an error, a cost and a caveat, for networks that are not alike; nothing is called
    flatness, and unequal train losses are pointed out.
    """
    pairs: Sequence[Trained] = [
        trained(run, epochs=12),
        trained(run, epochs=2, model={"name": "cnn", "channels": [4], "hidden": []}, optimizer={"name": "adamw"}),
    ]
    with no_trace():
        found = look(pairs, kind="sharpness", measures=ALL, lanczos_steps=10).numbers
    assert set(found["measures"]) == {*ALL, "lambda_max", "lambda_min"} - {"eigenvalues"}
    for about in found["measures"].values():
        assert about["caveat"]
        assert about["invariance"]
        for row, seen in zip(about["rows"], found["subjects"], strict=True):
            assert row["value"] is not None
            assert row["passes"]["forward"] >= 1
            assert row["train_loss"] == seen["train_loss"]
    assert found["measures"]["filter_noise"]["rows"][0]["passes"] == {"forward": 11, "backward": 0}
    assert found["subjects"][0]["edge_of_stability"] == pytest.approx(2 * 1.9 / 0.1)
    assert found["subjects"][1]["edge_of_stability"] is None
    assert [each[:24] for each in found["warnings"]] == [
        "The train losses are not",
        "The networks are not of ",
        "Weight decay is no part ",
    ]
    assert "flatness" not in str(found).lower()


@pytest.mark.parametrize(
    ("bias", "scale", "names"),
    [
        (-100.0, 1.0, ["filter noise"]),  # no example reaches the output, but its bias still moves
        (0.0, 0.0, ["filter noise", "multiplicative noise", "adaptive worst case"]),  # what is as long as 0 is 0
        (0.0, 1.0, []),
    ],
)
def test_a_loss_that_is_the_same_everywhere_is_told(bias: float, scale: float, names: list[str]) -> None:
    """0 ± 0 of a dead network is no flatness: warned of in the results, and once in the events."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        module[0].bias.add_(bias)
    part = TensorSplit(torch.randn(40, 4, generator=generator), torch.randint(0, 3, (40,), generator=generator))
    looked_at, analysis_progress = subject(module, part, Classification(())), Bench()
    spec = Sharpness(job=JOB, measures=tuple(ALL))
    tensors = compute_tensors(spec, [looked_at], cast("AnalysisProgress", analysis_progress))
    found = report_numbers(spec, [looked_at], tensors)
    assert [each.partition(" of tiny: the loss is ")[0] for each in analysis_progress.warned] == names
    assert found["warnings"][-len(names) or len(found["warnings"]) :] == analysis_progress.warned
    for name in names:
        (row,) = found["measures"][name.replace(" ", "_")]["rows"]
        assert row["value"] == pytest.approx(0.0, abs=1e-6)


def test_it_stops_anywhere_and_goes_on_to_the_same_bits(run: Train, look: Look) -> None:
    """In the middle of an ascent, of Lanczos, and between; a cancel keeps what is complete."""
    pairs = [trained(run, epochs=1)]
    fields = {"kind": "sharpness", "measures": ["eigenvalues", "trace", "worst_case"], "lanczos_steps": 10}
    whole = look(pairs, **fields)
    for tiles in (4, 20, 50):
        stopped = look(pairs, Watcher(stop_after=tiles), **fields)
        (written,) = stopped.watcher.checkpoints().values()
        resumed = look(pairs, resume=kept(written), **fields)
        assert resumed.watcher.start == tiles
        assert resumed.numbers == whole.numbers
        assert all(resumed.arrays[name].tobytes() == each.tobytes() for name, each in whole.arrays.items())
    cancelled = look(pairs, Watcher(stop_after=20, request="cancel"), **fields)
    assert cancelled.numbers["partial"]
    assert cancelled.numbers["measures"]["lambda_max"] == whole.numbers["measures"]["lambda_max"]
    assert cancelled.numbers["measures"]["worst_case"]["rows"][0]["value"] is None


def test_weights_stay_as_they_were() -> None:
    """To the bit, after everything that moves them."""
    looked_at = rectifier(1.0)
    before = looked_at.network.values.clone()
    for measure in ALL:
        measured(measure, looked_at)
    assert torch.equal(looked_at.network.values, before)
    assert not looked_at.network.gradient.any()


def test_what_cannot_be_measured_is_refused() -> None:
    """A point has no filters; the rise after one step is no measure; nothing is measured twice."""
    point = job(
        model={"name": "point", "start": [0.0, 0.0]}, data={"name": "function", "function": "saddle"}, batch_size=1
    )
    (problem,) = Sharpness(job=JOB).problems([point])
    assert (problem.pointer, problem.hint) == ("/measures", 'name others, as in "measures": ["eigenvalues"]')
    assert not list(Sharpness(job=JOB, measures=("eigenvalues",)).problems([point]))
    with pytest.raises(ValidationError):
        Sharpness(job=JOB, ascent_steps=1)
    (twice,) = Sharpness(job=JOB, measures=("trace", "trace")).contradictions()
    assert twice.pointer == "/measures"
