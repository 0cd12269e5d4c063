"""What a loss and a metric of any builder give, by hand; and what is said of one that cannot be used."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from core.engine.analysis.evaluate_weights import WeightsEvaluator
from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.evaluate import evaluate_network
from core.engine.evaluation.measure import MeasureInputs
from core.engine.evaluation.objective import MeasuredObjective, build_loss, build_metric, build_objective
from core.engine.failure import EngineError
from core.recipe.losses import LossSpec
from core.recipe.metrics import MetricSpec
from tests.support.measures import AbsoluteLoss, MissingLoss, OrderedPairs, SingleSums
from tests.train.objectives import classification
from tests.train.runs import job
from tests.train.tiny import subject

INPUTS = MeasureInputs(job())


def objective_of(loss: LossSpec, *metrics: MetricSpec) -> MeasuredObjective:
    """As a job with these has it, if they were installed."""
    return build_objective(job().model_copy(update={"loss": loss, "metrics": metrics}), None)


def test_a_function_of_examples_is_a_loss() -> None:
    """Errors (1, 2) and (0, 4) at scale 0.5: the examples cost 1.5 and 2, each output has the slope 0.5 / 2."""
    loss = build_loss(AbsoluteLoss(scale=0.5), INPUTS)
    outputs = torch.tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    mean = loss.mean(outputs, targets)
    mean.backward()
    assert mean.item() == 1.75
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[0.25, -0.25], [0.0, 0.25]]
    sums = loss.measure.example_sums(outputs.detach(), targets)
    assert (sums.dtype, sums.tolist()) == (torch.float64, [3.5])
    assert loss.measure.from_sums([3.5], TensorSplit(outputs, targets)) == 1.75


def test_sums_and_constants_of_several_measures_stay_apart() -> None:
    """r2 has a constant, and the pairs have two sums; each is the number that it is alone."""
    spec = job(loss="mse", metrics=["r2", "mae", "r2"])
    outputs, targets = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[0.0], [2.0], [4.0]])
    part = TensorSplit(outputs, targets)
    built = build_objective(spec, None)
    sums = torch.cat([built.example_sums(outputs, targets), built.split_constants(part)]).tolist()
    assert sums == [5.0, 5.0, 3.0, 8.0]  # of mse, r2 and mae, then the deviations
    assert built.metrics_from_sums(sums, part) == {"loss": 5 / 3, "r2": 1 - 5 / 8, "mae": 1.0}


def test_a_ranking_takes_whole_splits_also_in_an_analysis() -> None:
    """Blocks of two would miss most pairs, and then the landscape would show another metric than the evaluation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        part = TensorSplit(torch.randn(20, 4), torch.arange(20) % 3)
        module = nn.Sequential(nn.Linear(4, 3))
    objective = objective_of(classification_loss(), OrderedPairs())
    assert (objective.additive, classification("accuracy").additive) == (False, True)
    whole = subject(module, part, objective)
    looked_at = replace(whole, network=replace(whole.network, most_at_once=2))
    evaluator = WeightsEvaluator.for_subject(looked_at, ["train"], reestimate=False)
    expected = evaluate_network(looked_at.network, part, objective)
    assert evaluator.names == ("loss", "ordered_pairs")
    found = evaluator.evaluate_weights(looked_at.network.values[None])
    assert found[0, 0].tolist() == list(expected.values())
    assert 0 < expected["ordered_pairs"] < 1


def classification_loss() -> LossSpec:
    loss = job().loss
    assert loss is not None
    return loss


def test_a_builder_that_is_not_there_and_sums_of_another_kind_are_named() -> None:
    with pytest.raises(EngineError) as missing:
        build_loss(MissingLoss(), INPUTS)
    assert "this worker cannot import tests.support.measures:build_nothing, which builds the loss absolute" in str(
        missing.value
    )
    wrong = objective_of(classification_loss(), SingleSums())
    with pytest.raises(EngineError, match=r"the sums of ordered_pairs are torch.float32 \(1,\), not float64 \(1,\)"):
        wrong.example_sums(torch.zeros(3, 3), torch.arange(3))
    assert build_metric(OrderedPairs(), INPUTS).sums == 2
