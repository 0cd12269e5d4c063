"""The speed of reading data, as ratios within one run: batches against a bare index_select, mapped against resident.

    python -m bench.data [--rounds 5]

`take`     an epoch of batches by a split, against index_select of the same batches; at most 1.2 is wanted.
`mapped`   an epoch of batches from files in the page cache, against a resident dataset; at most 1 / 0.7 is wanted.
`augment`  an epoch with these operations, against one without, and images per CPU second; no limit.

Each round runs both sides in turn; a time is the CPU time of the fastest round.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.engine.datasets.augment import Augmentation
from core.engine.datasets.images import ValueTransform
from core.engine.datasets.prepared_split import PreparedSplit
from core.engine.datasets.resident import TensorSplit
from core.engine.datasets.source import RowSource
from core.engine.datasets.split import Batch, EpochOrder, Split
from core.engine.datasets.standardizer import Standardizer
from core.recipe.data.augment import Augmentation as Operation

BATCH: Final = 512
CPU: Final = torch.device("cpu")
CHANGES: Final = {
    "crop, hflip": [{"op": "crop"}, {"op": "hflip"}],
    "crop, hflip, mixup": [{"op": "crop"}, {"op": "hflip"}, {"op": "mixup"}],
    "randaugment": [{"op": "randaugment"}],
}

Side = Callable[[], Iterator[Batch]]


def seconds(side: Side) -> float:
    """CPU seconds of one epoch; every batch is used up before the next one."""
    start = time.thread_time()
    for inputs, targets in side():
        del inputs, targets
    return time.thread_time() - start


def fastest(rounds: int, *sides: Side) -> list[float]:
    """The fastest round of each side; the sides take turns."""
    for side in sides:
        seconds(side)
    return [min(column) for column in zip(*([seconds(side) for side in sides] for _ in range(rounds)), strict=True)]


def epoch(part: Split) -> Side:
    """The batches of one epoch of a split."""
    order = EpochOrder(torch.randperm(len(part), generator=torch.Generator().manual_seed(0)), 0, 0)
    return lambda: part.epoch_batches(order, BATCH, 0)


def bare(inputs: Tensor, targets: Tensor) -> Side:
    """The same batches by index_select alone."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))

    def batches() -> Iterator[Batch]:
        for chosen in torch.split(order, BATCH):
            yield inputs.index_select(0, chosen), targets.index_select(0, chosen)

    return batches


def prepared(
    tensors: dict[str, Tensor], *, scaled: bool, operations: list[dict[str, Any]] | None = None
) -> PreparedSplit:
    """All rows of a tensor `values` as a split, standardised if `scaled`."""
    values = tensors["values"]
    shape = tuple(values.shape[1:])
    scale = Standardizer(torch.zeros(1), torch.ones(1)) if scaled else None
    adapter: TypeAdapter[Any] = TypeAdapter(tuple[Operation, ...])
    changes = Augmentation(adapter.validate_json(json.dumps(operations)), 10) if operations else None
    name = "pixels" if operations is not None else "values"
    transform = ValueTransform(name, shape, scale, CPU)
    count = len(values)
    return PreparedSplit(
        RowSource({name: values}, CPU), torch.arange(count), torch.arange(count) % 10, transform, changes
    )


def write_and_map(folder: Path, values: Tensor) -> dict[str, Tensor]:
    """The same tensor, mapped from a file in the page cache."""
    save_file({"values": values}, folder / "values.safetensors")
    return load_file(folder / "values.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    table, images = torch.randn(400_000, 50), torch.randint(0, 256, (20_000, 3, 32, 32), dtype=torch.uint8)
    classes = torch.arange(len(table)) % 10
    print(f"{'what':44}{'rows/cpu-s':>14}{'ratio':>8}")
    ours, theirs = fastest(rounds, epoch(TensorSplit(table, classes)), bare(table, classes))
    print(f"{'take: built-in, 50 floats':44}{len(table) / ours:14,.0f}{ours / theirs:8.2f}")
    ours, theirs = fastest(rounds, epoch(prepared({"values": table}, scaled=False)), bare(table, classes))
    print(f"{'take: prepared, 50 floats':44}{len(table) / ours:14,.0f}{ours / theirs:8.2f}")
    with tempfile.TemporaryDirectory(prefix="basin-bench-") as folder:
        for name, values in (("50 floats", table), ("3x32x32 bytes", images)):
            mapped = epoch(prepared(write_and_map(Path(folder), values), scaled=True))
            ours, theirs = fastest(rounds, mapped, epoch(prepared({"values": values}, scaled=True)))
            print(f"{f'mapped: {name}':44}{len(values) / ours:14,.0f}{ours / theirs:8.2f}")
    plain = prepared({"values": images}, scaled=True, operations=[])
    for name, operations in CHANGES.items():
        changed = prepared({"values": images}, scaled=True, operations=operations)
        ours, theirs = fastest(rounds, epoch(changed), epoch(plain))
        print(f"{f'augment: {name}':44}{len(images) / ours:14,.0f}{ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
