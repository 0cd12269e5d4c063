"""A curve between two minima that the straight line does not connect."""

from typing import Any, cast

import pytest
import torch

from core.engine.analysis.connect import barrier_height, bezier, compute_tensors, lr_factor
from core.engine.analysis.loss_surface import LossSurface
from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import AnalysisSubject
from core.engine.determinism import seeded_generator
from core.engine.events import CheckpointWritten
from core.recipe.analyses.connect import Connect
from core.recipe.spec import JobSpec
from tests.train.looks import JOB, Look, kept
from tests.train.runs import Train, Watcher, job, no_trace
from tests.train.tiny import Bench, classifier

pytestmark = pytest.mark.usefixtures("one_thread")

Trained = tuple[JobSpec, CheckpointWritten]


def trained(run: Train, **fields: Any) -> Trained:
    spec = job(**fields)
    return spec, run(spec)[1].checkpoints()[spec.shape().run.total_steps]


def test_two_seeds_are_connected_by_a_curve(run: Train, look: Look) -> None:
    """The straight line rises by more than 0.1 between two perceptrons, the curve by less than 0.05; and the ends of
    both lines are the two networks.
    """
    pairs = [trained(run, seed=seed, epochs=30, model={"name": "mlp", "hidden": [64]}) for seed in (0, 1)]
    with no_trace():
        found = look(pairs, kind="connect", epochs=80, lr=0.05, points=11)
    curve, line = found.numbers["curve"]["train"], found.numbers["line"]["train"]
    assert line["barrier"] > 0.1
    assert curve["barrier"] < 0.05
    assert curve["accuracy"]["least"] > line["accuracy"]["least"]
    each = look(pairs, kind="average").numbers["members"]
    for place, member in zip((0, -1), each, strict=True):
        assert curve["loss"]["values"][place] == pytest.approx(member["train"]["loss"], rel=1e-5)
        assert line["loss"]["values"][place] == pytest.approx(member["train"]["loss"], rel=1e-5)
    assert found.numbers["length"]["curve"] > found.numbers["length"]["line"]


def test_least_squares_are_a_parabola_along_a_line(run: Train, look: Look) -> None:
    """L(t) along any straight line has constant second differences, and no barrier, since it is convex."""
    data = {"name": "diabetes", "validation": 0.1, "test": 0.1}
    pairs = [trained(run, model={"name": "logistic"}, data=data, seed=seed, epochs=1) for seed in (0, 1)]
    line = look(pairs, kind="connect", epochs=1, points=9).numbers["line"]["train"]
    losses = torch.tensor(line["loss"]["values"], dtype=torch.float64)
    bends = losses.diff(n=2)
    assert float(bends.min()) > 1e-4
    torch.testing.assert_close(bends, bends.mean().expand_as(bends), atol=1e-6, rtol=1e-3)
    assert line["barrier"] == 0.0


def test_the_curve_and_its_numbers() -> None:
    """φ is at both ends and half at θ in the middle; a barrier is what stands above the chord of the end's losses."""
    ends, theta = [torch.tensor([0.0, 4.0]), torch.tensor([2.0, 0.0])], torch.tensor([9.0, 1.0])
    assert bezier(ends, theta, 0.0).tolist() == [0.0, 4.0]
    assert bezier(ends, theta, 1.0).tolist() == [2.0, 0.0]
    assert bezier(ends, theta, 0.5).tolist() == [5.0, 1.5]
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    assert barrier_height(t, torch.tensor([1.0, 5.0, 3.0], dtype=torch.float64)) == 3.5
    assert barrier_height(t, torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)) == 0.0
    assert [lr_factor(each) for each in (0.0, 0.5, 0.7, 0.9, 1.0)] == pytest.approx([1.0, 1.0, 0.505, 0.01, 0.01])


def connected(subjects: list[AnalysisSubject], **fields: Any) -> Tensors:
    spec = Connect.model_validate({"checkpoints": ({"job": JOB},) * 2, "points": 3, **fields})
    return compute_tensors(spec, subjects, cast("AnalysisProgress", Bench()))


def test_theta_descends_the_loss_at_a_random_place() -> None:
    """One step on one batch: θ = midpoint - lr dL(φ(t))/dθ, by finite differences of θ."""
    subjects = [classifier(seed=seed, examples=12) for seed in (0, 1)]
    for each in subjects:
        each.network.module[2].p = 0.0  # without dropout the loss is a function
    theta = connected(subjects, epochs=1, lr=0.5)["theta"]
    ends = [each.network.values.clone() for each in subjects]
    first, part = subjects[0], subjects[0].parts["train"]
    t = float(torch.rand(1, generator=seeded_generator(0, "connect t", 0), dtype=torch.float64))
    surface = LossSurface(first.network, part, first.objective.loss)
    middle = (ends[0] + ends[1]) / 2
    slope = [
        (surface.loss_at(bezier(ends, middle + each, t)) - surface.loss_at(bezier(ends, middle - each, t))) / 2e-5
        for each in 1e-5 * torch.eye(len(middle), dtype=torch.float64)
    ]
    torch.testing.assert_close(theta, middle - 0.5 * torch.tensor(slope, dtype=torch.float64), atol=1e-8, rtol=1e-8)


def test_networks_are_left_as_they_were() -> None:
    """Weights, batch norm and modes to the bit, with dropout drawn from no generator but its own; twice the same."""
    subjects = [classifier(batch_norm=True, seed=seed) for seed in (0, 1)]
    before = [{name: tensor.clone() for name, tensor in each.network.tensors().items()} for each in subjects]
    with no_trace():
        once, again = (connected(subjects, epochs=3) for _ in range(2))
    assert all(torch.equal(each, again[name]) for name, each in once.items())
    assert not torch.equal(once["theta"], (subjects[0].network.values + subjects[1].network.values) / 2)
    for each, tensors in zip(subjects, before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in each.network.tensors().items())
        assert not any(layer.training for layer in each.network.module.modules())


def test_it_stops_anywhere_and_goes_on_to_the_same_bits(run: Train, look: Look) -> None:
    """Between epochs and between points; a cancel keeps θ as far as it came."""
    model = {"name": "mlp", "hidden": [8], "batch_norm": True, "dropout": 0.2}
    pairs = [trained(run, model=model, seed=seed, epochs=1) for seed in (0, 1)]
    fields = {"kind": "connect", "epochs": 4, "points": 5}
    whole = look(pairs, **fields)
    for tiles in (2, 4, 7):
        stopped = look(pairs, Watcher(stop_after=tiles), **fields)
        (written,) = stopped.watcher.checkpoints().values()
        resumed = look(pairs, resume=kept(written), **fields)
        assert resumed.watcher.start == tiles
        assert resumed.numbers == whole.numbers
        assert all(resumed.arrays[name].tobytes() == each.tobytes() for name, each in whole.arrays.items())
    early = look(pairs, Watcher(stop_after=2, request="cancel"), **fields)
    assert (early.numbers["partial"], early.numbers["epochs"]) == (True, 2)
    assert early.numbers["curve"]["val"]["barrier"] is None
    late = look(pairs, Watcher(stop_after=7, request="cancel"), **fields).numbers
    assert late["curve"]["val"]["loss"]["values"][:3] == whole.numbers["curve"]["val"]["loss"]["values"][:3]
    assert late["curve"]["val"]["loss"]["values"][3:] == [None, None]


def test_a_batch_of_one_has_no_statistics() -> None:
    """179 examples leave one alone in batches of 89, which only batch norm minds."""
    spec = Connect.model_validate({"checkpoints": ({"job": JOB},) * 2, "batch_size": 89})
    normal, plain = (job(model={"name": "mlp", "hidden": [4], "batch_norm": each}) for each in (True, False))
    assert [each.pointer for each in spec.problems([normal, normal])] == ["/batch_size"]
    assert not list(spec.problems([plain, plain]))
