"""The cost of the curvature of a small network: products with the Hessian, and Lanczos in 40 steps.

    python -m bench.curvature [--rounds 5]

A CNN of 13,802 weights with batch norm on 900 digits, one thread, CPU seconds of this process (so that other processes
do not count), the best of some alternating rounds. The naive way is that of the usual packages: for every product, over
the batches of a loader, a forward pass, a differentiable gradient, and its product with the vector, through the
unchanged module. In the engine, the split is one batch, the autograd graph is kept between products, and batch norm is
folded into the convolution before it. Both run the same Lanczos with full re-orthogonalisation, and have to agree.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.engine.analysis.curvature import Curvature, Lanczos
from core.engine.analysis.loss_surface import LossSurface
from core.engine.analysis.subject import sample_examples
from core.engine.datasets.resident import TensorSplit, load_resident
from core.engine.networks.network import Network, build_network
from core.recipe.data.materialise import materialise_dataset
from core.recipe.spec import JobSpec

BATCH, EXAMPLES, STEPS = 128, 900, 40
JOB = {
    "model": {"name": "cnn", "channels": [16, 32], "hidden": [64]},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "epochs": 1,
}


def setting() -> tuple[Network, TensorSplit]:
    """The network, with statistics of its data, and the examples."""
    spec = JobSpec.model_validate_json(json.dumps(JOB)).resolved()
    with tempfile.TemporaryDirectory() as folder:
        data = load_resident(spec.data, materialise_dataset(spec.data, Path(folder)), torch.device("cpu"))
    part = sample_examples(data.train, EXAMPLES, 0)
    network = build_network(spec.model, spec.data.facts(), 0, torch.device("cpu"))
    network.module.train()(part.inputs)
    network.module.eval()
    return network, part


def naive(module: nn.Module, part: TensorSplit) -> Callable[[Tensor], Tensor]:
    """Vector v (P,) -> H v (P,), batch by batch; P is the number of weights."""
    parameters = list(module.parameters())
    batches = list(zip(torch.split(part.inputs, BATCH), torch.split(part.targets, BATCH), strict=True))

    def product(vector: Tensor) -> Tensor:
        total = torch.zeros_like(vector)
        for inputs, targets in batches:
            loss = functional.cross_entropy(module(inputs), targets)
            slope = torch.cat([each.flatten() for each in torch.autograd.grad(loss, parameters, create_graph=True)])
            image = torch.autograd.grad(slope @ vector, parameters)
            total += torch.cat([each.flatten() for each in image]) * (len(inputs) / len(part))
        return total

    return product


def seconds(deed: Callable[[], object], rounds: int) -> float:
    """CPU time of the fastest."""
    times = []
    for _ in range(rounds):
        before = time.process_time()
        deed()
        times.append(time.process_time() - before)
    return min(times)


def lanczos(like: Tensor, product: Callable[[], Callable[[Tensor], Tensor]]) -> float:
    """The largest eigenvalue, from STEPS products and their preparation."""
    iteration, multiply = Lanczos.start_iteration(like, STEPS, 0), product()
    while not iteration.is_complete:
        iteration.extend_basis(multiply)
    return float(iteration.ritz_pairs().values[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    network, part = setting()
    surface = LossSurface(network, part, functional.cross_entropy)
    kept, plain = Curvature(surface, network.values), naive(network.module, part)
    vector = torch.randn(len(network.values), generator=torch.Generator().manual_seed(0))
    off = torch.linalg.vector_norm(kept.hessian_product(vector) - plain(vector)) / torch.linalg.vector_norm(
        plain(vector)
    )
    print(f"{len(vector)} weights, {len(part)} examples; the products differ by {float(off):.1e}")
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "a product": (lambda: kept.hessian_product(vector), lambda: plain(vector)),
        f"Lanczos, {STEPS} steps": (
            lambda: lanczos(vector, lambda: Curvature(surface, network.values).hessian_product),
            lambda: lanczos(vector, lambda: plain),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        fast, slow = seconds(ours, rounds), seconds(theirs, rounds)
        print(f"{name}: {1e3 * fast:.0f} ms, naive {1e3 * slow:.0f} ms: {slow / fast:.1f} times")


if __name__ == "__main__":
    main()
