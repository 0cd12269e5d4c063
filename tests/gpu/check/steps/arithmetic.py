"""Whether fp32 is fp32, and whether the gradients that are written out are those of autograd."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.engine.determinism import torch_switches
from core.engine.gradients.closed_form import closed_form
from core.engine.gradients.gradient import autograd_gradient
from core.engine.networks.network import build_network
from core.recipe.facts import DataFacts
from core.recipe.models.logistic import Logistic
from core.recipe.models.mlp import MLP
from tests.gpu.check.attempts import service
from tests.gpu.check.report import Report
from tests.gpu.check.steps.isolation import small
from tests.gpu.check.target import Target

CLASSES = DataFacts(examples=512, input_shape=(1, 8, 8), task="classification", outputs=10)
NUMBERS = DataFacts(examples=512, input_shape=(16,), task="regression", outputs=2)
FP32 = 1e-6  # relative error of a long fp32 product; TF32 has about 3e-4
OVERRIDE = "NVIDIA_TF32_OVERRIDE"
SECONDS = 60.0


def arithmetic(target: Target, report: Report) -> None:
    """In this process by the engine's switches, then in runners under a hostile environment."""
    device = torch.device(target.device)
    with torch_switches(target.plan(small())):
        for name, spec, facts in networks():
            with report.finding(f"{name}: written out and by autograd") as same:
                worst, bits = difference(spec, facts, device)
                same.says(worst < 1e-5, f"the same bits: {bits}", worst, "relative")
        for name, product in products().items():
            with report.finding(f"{name}: fp32 is fp32") as exact:
                error = product(device)
                exact.says(error < FP32, "", error, "relative")
    with report.finding("TF32 would have been seen") as seen:
        error = matrices(device, tf32=True)
        seen.says(error > 10 * FP32, "with TF32 allowed, or its rounding played", error, "relative")
    _overridden(target, report)


def networks() -> Iterator[tuple[str, Any, DataFacts]]:
    """With widths that are multiples of 16, and with odd ones."""
    for activation in ("relu", "tanh", "sigmoid"):
        yield f"mlp 128-128 {activation}", MLP(hidden=(128, 128), activation=activation), CLASSES
    yield "mlp 9-5-3", MLP(hidden=(9, 5, 3), activation="tanh"), CLASSES
    yield "logistic", Logistic(), CLASSES
    yield "mlp of a regression", MLP(hidden=(32, 16)), NUMBERS


def difference(spec: Any, facts: DataFacts, device: torch.device) -> tuple[float, bool]:
    """Largest difference of the two gradients against the largest entry, and whether there is none at all."""
    network = build_network(spec, facts, 1, device)
    loss: Any = functional.cross_entropy if facts.classes else functional.mse_loss
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, *facts.input_shape, generator=generator).to(device)
    targets = torch.randn(256, facts.outputs, generator=generator)
    if facts.classes:
        targets = torch.randint(facts.outputs, (256,), generator=generator)
    written = closed_form(network.module, loss)
    if written is None:
        raise LookupError("this network is not written out")
    first = written(inputs, targets.to(device))
    gradient = network.gradient.clone()
    second = autograd_gradient(network, loss)(inputs, targets.to(device))
    largest = float(network.gradient.abs().max())
    worst = float((gradient - network.gradient).abs().max()) / largest
    return worst, bool(torch.equal(gradient, network.gradient) and torch.equal(first, second))


def products() -> dict[str, Callable[[torch.device], float]]:
    """By name, the relative error against float64."""
    return {"a product of matrices": matrices, "a convolution": convolution}


def matrices(device: torch.device, *, tf32: bool = False) -> float:
    """Of 512 by 512 standard normals; on a CPU the rounding of TF32 is played."""
    first, second = (torch.randn(512, 512, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    if tf32 and device.type == "cpu":
        return error(rounded(first) @ rounded(second), first.double() @ second.double())
    before = torch.get_float32_matmul_precision()
    try:
        if tf32:
            torch.set_float32_matmul_precision("high")
        found = (first.to(device) @ second.to(device)).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    return error(found, first.double() @ second.double())


def convolution(device: torch.device) -> float:
    """Of 32 channels with 32, 3 by 3."""
    generator = torch.Generator().manual_seed(3)
    inputs, weights = (torch.randn(*shape, generator=generator) for shape in ((16, 32, 16, 16), (32, 32, 3, 3)))
    found = functional.conv2d(inputs.to(device), weights.to(device)).cpu()
    return error(found, functional.conv2d(inputs.double(), weights.double()))


def rounded(values: Tensor) -> Tensor:
    """To TF32's 10 bits of mantissa."""
    return ((values.view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def error(found: Tensor, exact: Tensor) -> float:
    """Relative, in the Frobenius norm."""
    return float((found.double() - exact).norm() / exact.norm())


def _overridden(target: Target, report: Report) -> None:
    """A variable of NVIDIA's libraries turns TF32 on behind torch's back; it must not reach a runner."""
    spec = small(model={"name": "mlp", "hidden": [256, 256]}, epochs=6)
    os.environ.pop(OVERRIDE, None)
    with service(target) as plain:
        first, _ = plain.run("plain", spec, SECONDS)
    os.environ[OVERRIDE] = "1"
    try:
        with service(target) as found:
            there = OVERRIDE in found.zygote_environment()
            report.says(f"{OVERRIDE} does not reach the zygote", not there)
            with report.finding(f"{OVERRIDE} changes no bit of a job") as same:
                second, _ = found.run("overridden", spec, SECONDS)
                same.says(first.digests() == second.digests(), str(second.digests()))
    finally:
        del os.environ[OVERRIDE]
