"""Datasets of one file, which fit on the device as a whole: loaded and standardised once, then indexed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from core.engine.checkpoints.files import file_digest, load_tensors
from core.engine.datasets.loaded import LoadedDataset
from core.engine.datasets.split import Batch, EpochOrder, select_rows
from core.engine.datasets.splitting import split_indices
from core.engine.datasets.standardizer import fit_standardizer, name_standardizers
from core.engine.datasets.windows import row_bytes, window_examples
from core.engine.determinism import seeded_generator
from core.engine.failure import EngineError
from core.engine.liveness import ReportAlive, report_nothing
from core.machine_failure import is_machine_failure
from core.recipe.data import DataSpec
from core.recipe.facts import DataFacts

REMEDY = "Write the dataset again (python -m core.recipe.data.materialise FOLDER) and check the disk."
MOST_ROWS = 10  # that a message names


@dataclass(frozen=True, slots=True)
class TensorSplit:
    """A split whose inputs (n, *input_shape) are on the device as the network reads them."""

    inputs: Tensor
    targets: Tensor
    is_augmented: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Tensor) -> Batch:
        return select_rows(self.inputs, indices), select_rows(self.targets, indices)

    def chunk(self, start: int, stop: int, *, augmented: bool = False) -> Batch:
        """Views of the split. It has no augmentation."""
        del augmented
        return self.inputs[start:stop], self.targets[start:stop]

    def whole(self) -> Batch:
        return self.inputs, self.targets

    def select(self, indices: Tensor) -> "TensorSplit":
        return TensorSplit(*self.take(indices))

    def epoch_batches(self, order: EpochOrder, size: int, first: int) -> Iterator[Batch]:
        """Views of windows of batches, with the alignment that they have in a gather of the whole epoch."""
        window = window_examples(size, row_bytes(tuple(self.inputs.shape[1:])))
        indices = order.indices.to(self.inputs.device)
        for begin in range(first * size // window * window, len(indices), window):
            inputs, targets = self.take(indices[begin : begin + window])
            pairs = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
            yield from list(pairs)[max(0, first - begin // size) :]


ResidentDataset = LoadedDataset[TensorSplit]


def load_resident(
    spec: DataSpec,
    path: Path,
    device: torch.device,
    sha256: str | None = None,
    report_alive: ReportAlive = report_nothing,
) -> ResidentDataset:
    """Read, split, standardise, move to the device. Raises EngineError(bad_data) if the file does not fit the spec."""
    inputs, targets = read_dataset(path, spec.facts(), sha256, report_alive)
    report_alive("dataset")
    numbers = targets.is_floating_point()
    groups = torch.zeros(len(targets), dtype=torch.int64) if numbers else targets
    indices = split_indices(groups, spec.split(), spec.split_seed)
    if spec.label_noise:
        targets = targets.clone()
        targets[indices.train] = add_label_noise(
            targets[indices.train], spec.label_noise, spec.facts().outputs, spec.split_seed
        )
    input_scale = fit_standardizer(inputs[indices.train], per_channel=inputs.ndim > 2) if spec.standardize else None
    target_scale = fit_standardizer(targets[indices.train], per_channel=False) if spec.standardize and numbers else None

    def standardised_split(chosen: Tensor) -> TensorSplit:
        chosen_inputs, chosen_targets = select_rows(inputs, chosen), select_rows(targets, chosen)
        return TensorSplit(
            (input_scale.apply(chosen_inputs) if input_scale else chosen_inputs).to(device),
            (target_scale.apply(chosen_targets) if target_scale else chosen_targets).to(device),
        )

    parts = (
        standardised_split(indices.train),
        standardised_split(indices.validation),
        standardised_split(indices.test),
    )
    report_alive("other")
    stored = name_standardizers(input_scale, target_scale)
    return ResidentDataset(*parts, target_scale, stored, indices)


def add_label_noise(targets: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """int64 (n,) with int(share n + 1/2) entries changed to another of the `classes`, all equally likely."""
    generator = seeded_generator(seed, "label noise")
    count = int(len(targets) * share + 0.5)
    wrong = torch.randperm(len(targets), generator=generator)[:count]
    shifts = torch.randint(1, classes, (count,), generator=generator)
    changed = targets.clone()
    changed[wrong] = (targets[wrong] + shifts) % classes
    return changed


def read_dataset(
    path: Path, facts: DataFacts, sha256: str | None = None, report_alive: ReportAlive = report_nothing
) -> tuple[Tensor, Tensor]:
    """`inputs` and `targets` of the file. Raises EngineError(bad_data) if they do not fit the facts or the digest."""
    try:
        if sha256 is not None:
            digest = file_digest(path, report_alive, "dataset")
            if digest != sha256:
                raise EngineError("bad_data", f"the dataset's SHA-256 is {digest}, not {sha256}", REMEDY)
        report_alive("dataset")
        tensors = load_tensors(path)
        inputs, targets = tensors["inputs"], tensors["targets"]
    except (OSError, SafetensorError, KeyError) as error:
        if is_machine_failure(error):
            raise
        raise EngineError("bad_data", f"cannot read the dataset: {error}", REMEDY) from error
    numbers = facts.task != "classification"
    found = (tuple(inputs.shape), inputs.dtype), (tuple(targets.shape), targets.dtype)
    expected = (
        ((facts.examples, *facts.input_shape), torch.float32),
        ((facts.examples, facts.outputs), torch.float32) if numbers else ((facts.examples,), torch.int64),
    )
    if found != expected:
        raise EngineError("bad_data", f"the dataset's inputs and targets are {found}, not {expected}", REMEDY)
    _refuse_rows(~_finite_rows(inputs) | ~_finite_rows(targets), "the dataset holds values that are not finite")
    if not numbers:
        _refuse_rows(
            (targets < 0) | (targets >= facts.outputs), f"the dataset's classes are not 0 to {facts.outputs - 1}"
        )
    return inputs, targets


def _finite_rows(values: Tensor) -> Tensor:
    """(n,): whether all of an example's values (n, …) are finite."""
    return values.isfinite().reshape(len(values), -1).all(dim=1)


def _refuse_rows(bad: Tensor, message: str) -> None:
    """Raises EngineError that names the first few bad rows, from the mask `bad`, bool (n,); rows count from 0."""
    rows = bad.nonzero().flatten().tolist()
    if rows:
        more = f" and {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else ""
        named = ", ".join(str(row) for row in rows[:MOST_ROWS])
        raise EngineError("bad_data", f"{message}: row{'s' if len(rows) > 1 else ''} {named}{more}", REMEDY)
