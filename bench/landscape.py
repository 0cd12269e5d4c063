"""The cost of a loss surface: 51 by 51 points of a small CNN on 900 digits, and against point-by-point evaluation.

    python -m bench.landscape [--rounds 9] [--points 2601] [--threads 1 2]

First whole surfaces, with each number of threads: on a busy machine two threads wait for each other more than they
help. Then the contenders alternate in one process and on one thread, each with some points of the same surface: the
engine, many points at once; the same network, its data resident, evaluated point by point; and the reference code of
Li et al. 2018: add the directions to each parameter, then loop over a DataLoader of batch 128. Ratios are of CPU time,
medians over the turns; the values of all contenders are compared. Networks are with and without batch norm, whose
statistics are fixed.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from core.engine.analysis.directions import axis_places, normalise_direction, random_direction
from core.engine.analysis.evaluate_weights import WeightsEvaluator, one_by_one
from core.engine.analysis.grid import WeightGrid, points_in_tile
from core.engine.analysis.subject import AnalysisSubject, sample_examples
from core.engine.datasets.resident import load_resident
from core.engine.evaluation.objective import build_objective
from core.engine.networks.network import build_network
from core.recipe.assignment import Source
from core.recipe.data.materialise import materialise_dataset, read_data
from core.recipe.spec import JobSpec

CPU = torch.device("cpu")
EXAMPLES, STEPS, BATCH = 900, 51, 128
TURN = 24  # points
Contender = Callable[[int, int], Tensor]  # points first … last - 1 -> float64 (K, loss and accuracy)


def subject(dataset: Path, *, batch_norm: bool) -> AnalysisSubject:
    """A CNN of around 14,500 weights."""
    model = {"name": "cnn", "channels": [16, 32], "hidden": [70], "batch_norm": batch_norm}
    job = {"model": model, "data": {"name": "digits"}, "optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 1}
    spec = JobSpec.model_validate_json(json.dumps(job)).resolved()
    data = load_resident(spec.data, dataset, CPU)
    network = build_network(spec.model, spec.data.facts(), 0, CPU)
    network.module.train()(data.train.inputs)  # running statistics of some data
    network.module.eval()
    parts: Any = {"train": sample_examples(data.train, EXAMPLES, 0), "val": data.validation, "test": data.test}
    source = Source(label="bench", job="bench", spec=spec, dataset=dataset)
    return AnalysisSubject(source, spec, network, parts, build_objective(spec, None))


def plane(looked: AnalysisSubject) -> WeightGrid:
    """Two filter-normalised random directions."""
    network, places = looked.network, axis_places((-1, 1), STEPS)
    found = [normalise_direction(network, random_direction(network, 0, each), "filter", "biasbn") for each in (0, 1)]
    return WeightGrid(network.values.clone(), torch.stack(found), (places, places))


def reference(looked: AnalysisSubject, surface: WeightGrid) -> Contender:
    """As loss-landscape does it: set_weights, then eval_loss."""
    module, part = looked.network.module, looked.parts["train"]
    loader = DataLoader(TensorDataset(part.inputs, part.targets), batch_size=BATCH)
    sizes = [each.numel() for each in module.parameters()]
    cut = [torch.split(each, sizes) for each in (surface.origin, *surface.directions)]
    criterion = nn.CrossEntropyLoss()

    def evaluated() -> list[float]:
        total, correct = 0.0, 0
        for inputs, targets in loader:
            outputs = module(inputs)
            total += criterion(outputs, targets).item() * len(inputs)
            correct += int((outputs.argmax(1) == targets).sum().item())
        return [total / len(part), correct / len(part)]

    def contender(first: int, last: int) -> Tensor:
        rows = []
        with torch.no_grad():
            for x, y in surface.point_coordinates(first, last).tolist():
                for parameter, w, d, e in zip(module.parameters(), *cut, strict=True):
                    parameter.copy_((w + x * d + y * e).view_as(parameter))
                rows.append(evaluated())
            looked.network.values.copy_(surface.origin)
        return torch.tensor(rows, dtype=torch.float64)

    return contender


def contenders(looked: AnalysisSubject, surface: WeightGrid) -> dict[str, Contender]:
    judge = WeightsEvaluator.for_subject(looked, ("train",), reestimate=False)
    return {
        "engine, many points at once": lambda first, last: judge.evaluate_weights(surface.point_weights(first, last))[
            :, 0
        ],
        "resident, point by point": lambda first, last: one_by_one(judge, surface.point_weights(first, last))[:, 0],
        "reference way": reference(looked, surface),
    }


def whole(looked: AnalysisSubject, surface: WeightGrid, points: int, threads: int) -> tuple[float, float]:
    """Seconds of wall-clock and of CPU time, tile by tile as in an analysis."""
    judge = WeightsEvaluator.for_subject(looked, ("train",), reestimate=False)
    size = points_in_tile(judge)
    torch.set_num_threads(threads)
    clock, processor = time.perf_counter(), time.process_time()
    for first in range(0, points, size):
        judge.evaluate_weights(surface.point_weights(first, min(first + size, points)))
    return time.perf_counter() - clock, time.process_time() - processor


def compare(turns: dict[str, Contender], rounds: int, points: int) -> tuple[dict[str, float], dict[str, float]]:
    """Name -> CPU seconds for a point (median); name -> the largest difference from the engine's value."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    apart: dict[str, float] = dict.fromkeys(turns, 0.0)
    for turn in range(1 + rounds):
        first = turn * TURN % (points - TURN)
        found = {}
        for name, contender in turns.items():
            start = time.process_time()
            found[name] = contender(first, first + TURN)
            if turn:
                seconds[name].append((time.process_time() - start) / TURN)
        truth = found["engine, many points at once"]
        for name, each in found.items():
            apart[name] = max(apart[name], float(((each - truth).abs() / truth.abs().clamp(min=1)).max()))
    return {name: statistics.median(each) for name, each in seconds.items()}, apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--points", type=int, default=STEPS**2)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = materialise_dataset(read_data("digits"), Path(folder))
        for batch_norm in (False, True):
            looked = subject(dataset, batch_norm=batch_norm)
            surface = plane(looked)
            print(f"cnn 16-32, 70{' with batch norm' * batch_norm}: {len(looked.network.values):,} weights")
            for threads in options.threads:
                clock, processor = whole(looked, surface, options.points, threads)
                print(
                    f"  {options.points} points, threads {threads}: {clock:.1f} s, {processor:.1f} s of the processor"
                )
            torch.set_num_threads(1)
            medians, apart = compare(contenders(looked, surface), options.rounds, options.points)
            best = next(iter(medians.values()))
            for name, each in medians.items():
                print(f"  {name:30}{each * 1e3:7.2f} ms a point{each / best:7.1f} times; apart {apart[name]:.1e}")


if __name__ == "__main__":
    main()
