"""The warm-up of a zygote: torch's imports and set-up at first use, done before any child is forked."""

import os
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import get_args

import torch
from safetensors.torch import load, save

import core.engine.loop  # noqa: F401 - a child finds all of the engine imported
from core.engine.datasets.resident import TensorSplit
from core.engine.determinism import private_randomness
from core.engine.evaluation.objective import Classification
from core.engine.gradients.gradient import build_gradient
from core.engine.networks.network import build_network
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.stepper import build_stepper
from core.recipe.facts import DataFacts
from core.recipe.models import Model
from core.recipe.models.mlp import MLP
from core.recipe.optimizers import Optimizer
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.spec import JobSpec

TINY = DataFacts(examples=4, input_shape=(4,), task="classification", outputs=2)


def warm_up_torch() -> None:
    """Take one step of every optimizer on a tiny network; the first step of a forked child then takes milliseconds.

    It runs in one thread and leaves the process with one, so that no OpenMP threads exist when it forks. With a torch
    that was built for CUDA it only imports: autograd and the optimizers initialise the driver at first use, and a
    driver that was initialised before the fork fails after it.
    """
    torch.set_num_threads(1)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # is_available() then asks NVML, not the driver
    load(save({"warm": torch.zeros(1)}))
    JobSpec.model_rebuild()
    for model in get_args(get_args(Model)[0]):
        import_module(model.implementation.split(":")[0])
    with private_randomness(0, "warm"):
        inputs, targets = torch.ones(4, 4), torch.tensor([0, 1, 0, 1])
        make_network = partial(build_network, MLP(hidden=(4, 4), dropout=0.5), TINY, 0, torch.device("cpu"))
        network = make_network()
        gradient = build_gradient(network, Classification(()).loss)
        eval_weights = partial(EvalWeights, network, make_network, TensorSplit(inputs, targets), 4)
        for spec in installed_optimizers():
            stepper = build_stepper(spec, network, eval_weights)
            if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
                gradient(inputs, targets)
                stepper.step(1e-3, partial(gradient, inputs, targets))


def installed_optimizers() -> Iterator[OptimizerSpec]:
    """The optimizers whose packages are installed. Those of an extra are left out: their import takes a second."""
    for kind in get_args(get_args(Optimizer)[0]):
        if kind.extra is None and find_spec(kind.implementation.partition(":")[0].partition(".")[0]):
            yield kind()
