"""The contract of a loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from core.engine.evaluation.measure import BatchLoss
from core.engine.evaluation.objective import build_loss
from core.engine.implementations import load_implementation
from core.recipe.losses import LossSpec
from core.testing.batches import CUT, EXAMPLES, ContractBatch, job_fields, make_batch
from core.testing.component import check_component, no_global_randomness
from core.testing.runs import check_run

ExampleFormula = Callable[[list[float], Any], float]
"""(outputs of one example, its class or its target numbers) -> its loss."""
STEP = 1e-6
"""The distance of the finite differences, for outputs of about 1 in float64."""


def check_loss(spec: LossSpec, formula: ExampleFormula | None = None, **fields: Any) -> None:
    """Everything. `formula` is the loss of one example in plain Python; `fields` are those of the job that is run."""
    check_component(spec, LossSpec)
    fields = job_fields(spec, {"loss": spec.dump(), **fields})
    batch = make_batch(spec, fields)
    check_loss_values(spec, batch, formula)
    check_loss_gradient(spec, batch)
    check_loss_sums(spec, batch)
    check_run(**fields)


def check_loss_values(spec: LossSpec, batch: ContractBatch, formula: ExampleFormula | None = None) -> None:
    """A scalar with the same bits twice, without a draw, in the precision of the outputs, and that of the formula."""
    outputs, targets = batch.outputs, batch.targets
    with no_global_randomness():
        first, second = (build_loss(spec, batch.inputs).mean(outputs, targets) for _ in range(2))
    assert torch.equal(first, second), "the same batch gives another loss the second time"
    built = load_implementation(spec, "loss")(spec, batch.inputs)
    if not isinstance(built, BatchLoss):
        shape = tuple(built(outputs, targets).shape)
        assert shape == (EXAMPLES,), f"the values of {EXAMPLES} examples are {shape}, not {(EXAMPLES,)}"
    single = outputs.float(), targets.float() if targets.is_floating_point() else targets
    found = build_loss(spec, batch.inputs).mean(*single)
    assert (found.shape, found.dtype) == ((), torch.float32), f"the mean is {found.dtype} {tuple(found.shape)}"
    assert bool(found.isfinite()), "the loss is not finite"
    if formula:
        losses = [formula(*pair) for pair in zip(outputs.tolist(), targets.tolist(), strict=True)]
        expected = sum(losses) / EXAMPLES
        assert abs(first.item() - expected) < 1e-9 * max(1, abs(expected)), f"{first.item()}, not {expected}"


def check_loss_gradient(spec: LossSpec, batch: ContractBatch) -> None:
    """The gradient is that of finite differences, and torch.func finds the same, alone and for many batches at once."""
    loss, outputs, targets = build_loss(spec, batch.inputs).mean, batch.outputs.clone().requires_grad_(), batch.targets
    (slope,) = torch.autograd.grad(loss(outputs, targets), outputs)
    for place in range(outputs.numel()):
        ends = []
        for side in (STEP, -STEP):
            moved = batch.outputs.flatten().clone()
            moved[place] += side
            ends.append(loss(moved.view_as(outputs), targets).item())
        expected, found = (ends[0] - ends[1]) / (2 * STEP), slope.flatten()[place].item()
        message = f"the gradient by output {place} is {found}, and finite differences give {expected}"
        assert abs(found - expected) < 1e-6 * max(1, abs(expected)), message
    many = torch.stack([batch.outputs, batch.outputs + 1])
    together: Tensor = vmap(grad(loss), in_dims=(0, None))(many, targets)
    assert torch.allclose(together[0], slope, rtol=1e-9, atol=1e-12), "torch.func.grad finds another gradient"


def check_loss_sums(spec: LossSpec, batch: ContractBatch) -> None:
    """Micro-batches, weighted by their examples, give the loss of the batch; so do the sums of an evaluation."""
    built, outputs, targets = build_loss(spec, batch.inputs), batch.outputs, batch.targets
    whole = built.mean(outputs, targets).item()
    parts = [(outputs[:CUT], targets[:CUT]), (outputs[CUT:], targets[CUT:])]
    shared = sum(built.mean(*part).item() * len(part[0]) / EXAMPLES for part in parts)
    message = f"two micro-batches give {shared}, and the batch {whole}: it is no mean over examples"
    assert abs(shared - whole) < 1e-9 * max(1, abs(whole)), message
    sums = torch.stack([built.measure.example_sums(*part) for part in parts]).sum(0)
    constants = built.measure.split_constants(batch.split)
    evaluated = built.measure.from_sums([*sums.tolist(), *constants.tolist()], batch.split)
    assert abs(evaluated - whole) < 1e-6 * max(1, abs(whole)), f"an evaluation gives {evaluated}, a step {whole}"
