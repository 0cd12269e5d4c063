"""The contract of a metric."""

import math
from collections.abc import Callable
from typing import Any

import torch

from core.engine.datasets.split import Split
from core.engine.evaluation.measure import Measure
from core.engine.evaluation.objective import build_metric
from core.recipe.metrics import MetricSpec
from core.testing.batches import CUT, ContractBatch, job_fields, make_batch
from core.testing.component import check_component, no_global_randomness
from core.testing.runs import check_run

SplitFormula = Callable[[list[list[float]], list[Any]], float]
"""(outputs of all examples, their classes or target numbers) -> the metric."""


def check_metric(spec: MetricSpec, formula: SplitFormula | None = None, **fields: Any) -> None:
    """Everything. `formula` is the metric in plain Python; `fields` are those of the job that is run.

    The job monitors the metric, so it must be a finite number there.
    """
    check_component(spec, MetricSpec)
    monitored = {"early_stopping": {"monitor": f"val.{spec.name}", "patience": 1000}}
    fields = job_fields(spec, {"metrics": [spec.dump()], **monitored, **fields})
    batch = make_batch(spec, fields)
    check_metric_values(spec, batch, formula)
    check_metric_sums(spec, batch)
    check_run(**fields)


def check_metric_values(spec: MetricSpec, batch: ContractBatch, formula: SplitFormula | None = None) -> None:
    """Float64 sums with the same bits twice, without a draw; a finite number, which is that of the formula."""
    measure = build_metric(spec, batch.inputs)
    with no_global_randomness():
        first, second = (measure.example_sums(batch.outputs, batch.targets) for _ in range(2))
    expected = ((measure.sums,), torch.float64)
    assert (first.shape, first.dtype) == expected, f"the sums are {first.dtype} {tuple(first.shape)}, not {expected}"
    assert torch.equal(first, second), "the same examples give other sums the second time"
    constants = measure.split_constants(batch.split)
    message = f"the constants are {constants.dtype} {tuple(constants.shape)}, not float64 {(measure.constants,)}"
    assert (constants.shape, constants.dtype) == ((measure.constants,), torch.float64), message
    found = _number(measure, first.tolist(), batch.split)
    assert isinstance(found, float), f"the metric is a {type(found).__name__}, not a float"
    assert math.isfinite(found), "the metric is not finite"
    if formula:
        right = formula(batch.outputs.tolist(), batch.targets.tolist())
        assert abs(found - right) < 1e-9 * max(1, abs(right)), f"the metric is {found}, not {right}"


def check_metric_sums(spec: MetricSpec, batch: ContractBatch) -> None:
    """The sums of blocks add up to those of the whole, and many networks at once have the same sums as one by one."""
    measure = build_metric(spec, batch.inputs)
    if not measure.additive:
        return
    outputs, targets = batch.outputs, batch.targets
    whole = measure.example_sums(outputs, targets)
    parts = [(outputs[:CUT], targets[:CUT]), (outputs[CUT:], targets[CUT:])]
    total = torch.stack([measure.example_sums(*part) for part in parts]).sum(0)
    message = f"two blocks have the sums {total.tolist()}, and the whole {whole.tolist()}: set additive=False"
    assert torch.allclose(total, whole, rtol=1e-9, atol=1e-12), message
    together = torch.vmap(measure.example_sums, in_dims=(0, None))(torch.stack([outputs, -outputs]), targets)
    assert torch.allclose(together[0], whole, rtol=1e-9, atol=1e-12), "torch.vmap gives other sums"


def _number(measure: Measure, sums: list[float], part: Split) -> float:
    return measure.from_sums([*sums, *measure.split_constants(part).tolist()], part)
