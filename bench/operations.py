"""How many operations a training step queues on its device, and how often it waits for it.

    python -m bench.operations [--batch 32]

Counted on meta tensors, so that no GPU is needed. Each operation launches one or a few kernels, and each launch takes
the host about 5 µs, whatever the kernel computes: this bounds the step rate of a GPU, and small networks are limited by
it. Views and allocations are not counted; a fused optimizer is one operation.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.objective import build_objective
from core.engine.gradients.gradient import build_gradient
from core.engine.networks.network import build_network
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.stepper import build_stepper
from core.recipe.catalog import component_classes
from core.recipe.spec import JobSpec

META: Final = torch.device("meta")
STEPS: Final = 4
NETWORKS: Final[dict[str, dict[str, Any]]] = {
    "logistic": {"name": "logistic"},
    "mlp 128-128": {"name": "mlp"},
    "mlp 128-128, batch norm, dropout": {"name": "mlp", "batch_norm": True, "dropout": 0.1},
    "cnn": {"name": "cnn"},
}
FULL_BATCH: Final = frozenset({"lbfgs", "rprop"})
WITHOUT_KERNEL: Final = ("aten::empty", "aten::new_empty", "aten::detach", "aten::_unsafe_view", "aten::lift_fresh")
READS: Final = "aten::_local_scalar_dense"


class Counting(TorchDispatchMode):
    """Counts operations on META and reads from it; every value that is read is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = func._schema.name, kwargs or {}  # noqa: SLF001 - torch has no other name for it
        there = any(isinstance(each, Tensor) and each.is_meta for each in tree_leaves((args, options)))
        if there and name == READS:
            self.reads += 1
            return 1.0 if args[0].is_floating_point() else 1
        if there and name == "aten::_to_copy" and options.get("device") == torch.device("cpu"):
            self.reads += 1
            return torch.ones(args[0].shape, dtype=args[0].dtype)
        self.operations += there and not _is_free(func, name)
        return None if name.startswith("aten::_fused_") else func(*args, **options)


def _is_free(func: Any, name: str) -> bool:
    """Whether it is a view or an allocation, which queue nothing."""
    infos = [each.alias_info for each in func._schema.returns]  # noqa: SLF001 - as above
    return name.startswith(WITHOUT_KERNEL) or any(each is not None and not each.is_write for each in infos)


@contextmanager
def fused_anywhere() -> Iterator[None]:
    """Let torch make fused optimizers on META: by default it makes them only for devices that it has kernels for."""
    home = import_module("torch.optim.optimizer")
    name = "_get_fused_kernels_supported_devices"
    before = getattr(home, name)
    setattr(home, name, lambda: [*before(), META.type])
    try:
        yield
    finally:
        setattr(home, name, before)


def counted(spec: JobSpec, batch: int) -> tuple[int, int]:
    """Operations and reads of a step that is not the first."""
    facts = spec.data.facts()
    with fused_anywhere(), Counting() as count:
        make_network = partial(build_network, spec.model, facts, spec.seed, META, spec.no_decay)
        network = make_network()
        network.module.train()
        inputs = torch.empty(batch, *facts.input_shape, device=META)
        targets = torch.empty(batch, dtype=torch.int64, device=META)
        eval_weights = partial(EvalWeights, network, make_network, TensorSplit(inputs, targets), batch)
        stepper = build_stepper(spec.optimizer, network, eval_weights)
        gradient = build_gradient(network, build_objective(spec, None).loss)
        for _ in range(STEPS):
            before = count.operations, count.reads
            gradient(inputs, targets)
            stepper.step(spec.optimizer.lr, partial(gradient, inputs, targets))
    return count.operations - before[0], count.reads - before[1]


def job(network: dict[str, Any], optimizer: str, batch: int) -> JobSpec:
    """A job on the digits."""
    own = {"optimizer": "lion"} if optimizer == "pytorch_optimizer" else {}
    fields = {
        "model": network,
        "data": {"name": "digits"},
        "optimizer": {"name": optimizer, "lr": 0.01, **own},
        "batch_size": "full" if optimizer in FULL_BATCH else batch,
        "epochs": 1,
    }
    return JobSpec.model_validate_json(json.dumps(fields)).resolved()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    batch = parser.parse_args().batch
    print("| optimizer | " + " | ".join(NETWORKS) + " |")
    print("|---|" + "---|" * len(NETWORKS))
    for optimizer in sorted(component_classes("optimizers")):
        cells = []
        for network in NETWORKS.values():
            if optimizer == "muon" and network["name"] == "logistic":
                cells.append("-")  # it has no hidden matrix
                continue
            operations, reads = counted(job(network, optimizer, batch), batch)
            cells.append(f"{operations}" + (f" (reads {reads})" if reads else ""))
        print(f"| {optimizer} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
