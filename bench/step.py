"""The time of one training step: gradient and optimizer, in this checkout and, alternating, in another one.

    python -m bench.step [--against CHECKOUT] [--rounds 7] [--steps 400]

Each round starts one process for each checkout, one after the other, so that a machine that slows down slows both.
The result is the CPU time of the one thread in the fastest stretch of all rounds: other processes can only add to it.
The ratio is this checkout's time divided by the other's.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.objective import build_objective
from core.engine.gradients.gradient import build_gradient
from core.engine.networks.network import build_network
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.stepper import build_stepper
from core.recipe.spec import JobSpec

HERE: Final = Path(__file__).resolve().parents[1]
STRETCHES: Final = 20
CASES: Final[dict[str, dict[str, Any]]] = {
    "logistic, sgd": {"model": {"name": "logistic"}},
    "mlp 128-128, sgd": {"model": {"name": "mlp"}},
    "mlp 128-128, adamw, no_decay": {
        "model": {"name": "mlp"},
        "optimizer": {"name": "adamw"},
        "no_decay": ["bias", "norm"],
    },
    "mlp 128-128 batch norm, sgd": {"model": {"name": "mlp", "batch_norm": True}},
    "mlp 128-128, muon": {"model": {"name": "mlp"}, "optimizer": {"name": "muon"}},
    "cnn, sgd": {"model": {"name": "cnn"}},
}


def time_case(fields: dict[str, Any], steps: int) -> float:
    """Microseconds of a step on a batch of 32 digits."""
    base = {"data": {"name": "digits"}, "optimizer": {"name": "sgd", "momentum": 0.9}, "epochs": 1}
    spec = JobSpec.model_validate_json(json.dumps({**base, **fields})).resolved()
    facts, device = spec.data.facts(), torch.device("cpu")
    make_network = partial(build_network, spec.model, facts, spec.seed, device, spec.no_decay)
    network = make_network()
    network.module.train()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, *facts.input_shape, generator=generator)
    targets = torch.randint(facts.outputs, (32,), generator=generator)
    stepper = build_stepper(
        spec.optimizer, network, partial(EvalWeights, network, make_network, TensorSplit(inputs, targets), 32)
    )
    gradient = build_gradient(network, build_objective(spec, None).loss)
    again = partial(gradient, inputs, targets)
    taken = []
    for _ in range(STRETCHES + 1):
        start = time.thread_time()
        for _ in range(steps // STRETCHES):
            gradient(inputs, targets)
            stepper.step(spec.optimizer.lr, again)
        taken.append((time.thread_time() - start) / (steps // STRETCHES))
    return 1e6 * min(taken[1:])


def time_all(steps: int) -> dict[str, float]:
    """Every case, in this process."""
    torch.set_num_threads(1)
    return {name: time_case(fields, steps) for name, fields in CASES.items()}


def time_checkout(checkout: Path, steps: int) -> dict[str, float]:
    """Every case in a process that imports the engine of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--once", "--steps", str(steps)]
    clean = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=clean, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(time_all(options.steps)))
        return
    checkouts = [HERE, *([options.against.resolve()] if options.against else [])]
    rounds = [[time_checkout(each, options.steps) for each in checkouts] for _ in range(options.rounds)]
    print(f"{'step':32}{'here, µs':>10}" + (f"{'there, µs':>11}{'ratio':>8}" if options.against else ""))
    for name in CASES:
        fastest = [min(turn[place][name] for turn in rounds) for place in range(len(checkouts))]
        there = f"{fastest[1]:11.1f}{fastest[0] / fastest[1]:8.3f}" if options.against else ""
        print(f"{name:32}{fastest[0]:10.1f}{there}")


if __name__ == "__main__":
    main()
