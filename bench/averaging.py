"""The cost of averaging the weights after every step: as a share of a whole job, and against torch's AveragedModel.

    python -m bench.averaging [--rounds 300]

One thread; the contenders alternate in one process. First whole jobs (mlp 128-128, batch 32): how much longer a job
takes that averages after every step than the same job that averages once. Then single updates, each after a training
step, as in a job, so that the caches hold the same data. A step is gradient and optimizer alone: the engine's, and
torch's fastest (resident tensors, autograd, fused Adam). torch averages the buffers of batch norm too, as the engine's
EMA does. Compare the ratios, not the times.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench.engine import Fit, engine
from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.objective import build_objective
from core.engine.gradients.gradient import build_gradient
from core.engine.networks.network import Network, build_network
from core.engine.optimizers.flat import build_flat_stepper as build_stepper
from core.engine.weights.averaging import ExponentialMean, RunningMean
from core.recipe.averaging import CollectionSteps, EmaPhase
from core.recipe.data.materialise import materialise_dataset, read_data
from core.recipe.spec import JobSpec

CPU = torch.device("cpu")
ALWAYS = CollectionSteps(1, 1)
MODELS: dict[str, dict[str, Any]] = {
    "mlp 128-128, batch 32": {"model": {"name": "mlp", "hidden": [128, 128]}, "batch_size": 32},
    "cnn 32-64 with batch norm, batch 128": {
        "model": {"name": "cnn", "channels": [32, 64], "hidden": [128]},
        "batch_size": 128,
    },
}
WARMING, COUNTED = 5, 20  # steps in one turn of a contender
EPOCHS, JOBS = 20, 41
JOB: dict[str, dict[str, Any]] = {
    "SWA": {"swa": {"start": "1st", "lr": 0.1, "anneal": "1st"}},
    "EMA": {"ema": {"start": "1st", "decay": 0.999}},
}
Update = Callable[[], object]


def spec_of(fields: dict[str, Any]) -> JobSpec:
    job = {"data": {"name": "digits"}, "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}, "epochs": 1, **fields}
    return JobSpec.model_validate_json(json.dumps(job)).resolved()


def network_of(spec: JobSpec) -> Network:
    return build_network(spec.model, spec.data.facts(), spec.seed, CPU)


def step_of(spec: JobSpec, network: Network) -> Update:
    """One training step of the engine on random digits."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(spec.shape().batch, *spec.data.facts().input_shape, generator=generator)
    targets = torch.randint(10, (spec.shape().batch,), generator=generator)
    gradient = build_gradient(network, build_objective(spec, None).loss)
    stepper = build_stepper(spec.optimizer, network)
    network.module.train()

    def step() -> None:
        gradient(inputs, targets)
        stepper.step(0.01)

    return step


def plain_step_of(spec: JobSpec, network: Network) -> Update:
    """One training step in plain torch at its fastest: nothing is copied, Adam is fused."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(spec.shape().batch, *spec.data.facts().input_shape, generator=generator)
    targets = torch.randint(10, (spec.shape().batch,), generator=generator)
    module: nn.Module = deepcopy(network.module)
    optimizer = torch.optim.Adam(module.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def contenders(spec: JobSpec, network: Network) -> dict[str, Update]:
    """Name -> a function that adds the network's weights to an average of its own."""
    swa = RunningMean(ALWAYS, network_of(spec), TensorSplit(torch.zeros(0), torch.zeros(0)), 1)
    ema = ExponentialMean(EmaPhase(ALWAYS, 0.999), network_of(spec))
    plain: nn.Module = deepcopy(network.module)
    torchs_swa = AveragedModel(plain, use_buffers=True)
    multi_avg = get_ema_multi_avg_fn(0.999)  # type: ignore[no-untyped-call]
    torchs_ema = AveragedModel(plain, multi_avg_fn=multi_avg, use_buffers=True)
    return {
        "engine's SWA": lambda: swa.collect(network),
        "engine's EMA": lambda: ema.collect(network),
        "torch's AveragedModel": lambda: torchs_swa.update_parameters(plain),
        "torch's EMA multi_avg": lambda: torchs_ema.update_parameters(plain),
    }


def measure(step: Update, plain: Update, updates: dict[str, Update], rounds: int) -> dict[str, float]:
    """Name -> median seconds, of the steps too. Each turn's first steps, and all of the first turn, do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ("step", "plain", *updates)}
    for turn in range(1 + -(-rounds // COUNTED)):
        for name, update in {**updates, "plain": plain}.items():
            for each in range(-WARMING, COUNTED):
                for what, call in (("step", step), (name, update)):
                    start = time.perf_counter()
                    call()
                    taken = time.perf_counter() - start
                    if turn and each >= 0:
                        seconds[what].append(taken)
    return {name: statistics.median(each) for name, each in seconds.items()}


def whole_jobs(folder: Path) -> dict[str, float]:
    """Name -> the share of its time that a job spends with averaging after every step."""
    dataset = materialise_dataset(read_data("digits"), folder)
    late = {"evaluate": {"every": f"{EPOCHS}ep"}}
    found = {}
    for name, fields in JOB.items():
        ((field, average),) = fields.items()
        often, once = (
            engine("sgd", EPOCHS, dataset, **late, **{field: {**average, "every": every}}) for every in ("1st", "1run")
        )
        _seconds(often), _seconds(once)
        ratios = [_seconds(once) / _seconds(often) for _ in range(JOBS)]
        found[name] = 1 - statistics.median(ratios)
    return found


def _seconds(fit: Fit) -> float:
    """CPU seconds of this process: in wall-clock time, other processes would hide shares of a few percent."""
    start = time.process_time()
    fit()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, share in whole_jobs(Path(folder)).items():
            print(f"a job with {name} after every step spends {share:.1%} of its time on it")
    for title, fields in MODELS.items():
        spec = spec_of(fields)
        network = network_of(spec)
        steps = step_of(spec, network), plain_step_of(spec, network)
        medians = measure(*steps, contenders(spec, network), options.rounds)
        step, plain, best = medians.pop("step"), medians.pop("plain"), medians["engine's EMA"]
        print(f"{title}: a step of the engine takes {step * 1e6:,.0f} us, torch's {plain * 1e6:,.0f} us")
        for name, each in medians.items():
            shares = f"{each / step:8.2%} of the engine's,{each / plain:8.2%} of torch's"
            print(f"  {name:24}{each * 1e6:9.1f} us{shares}{each / best:8.1f} times the engine's EMA")


if __name__ == "__main__":
    main()
