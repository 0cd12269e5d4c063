"""The targets of a prepared dataset, and its division into splits, from its stored columns."""

import torch
from torch import Tensor

from core.engine.datasets.resident import REMEDY
from core.engine.datasets.source import Source
from core.engine.datasets.splitting import SplitIndices, split_by_part, split_indices, split_tail
from core.engine.failure import EngineError
from core.recipe.data import Dataset
from core.recipe.data.manifest import ColumnFacts, DatasetManifest
from core.recipe.data.resolved_split import dataset_split_sizes
from core.recipe.data.split import ColumnSplit, GroupSplit, RandomSplit, StoredSplit, assign_groups
from core.recipe.data.target import classes_of_codes


def target_tensors(data: Dataset, manifest: DatasetManifest) -> tuple[str, ...]:
    """The tensors that targets and split are read from."""
    split = ("split",) if isinstance(data.split_by, StoredSplit) else ()
    if manifest.kind == "images":
        return ("labels", *split)
    if manifest.kind == "arrays":
        return ("targets", *split)
    column = column_facts(manifest, data.target or "")
    codes = column.kind == "category" or isinstance(data.split_by, ColumnSplit | GroupSplit)
    numbers = () if column.kind == "category" else ("numbers",)
    return (*(("codes",) if codes else ()), *numbers, *split)


def column_facts(manifest: DatasetManifest, name: str) -> ColumnFacts:
    """The facts of a column. Raises EngineError(bad_data) if the dataset has none of that name."""
    for column in manifest.columns:
        if column.name == name:
            return column
    raise EngineError("bad_data", f"the dataset has no column {name[:80]!r}", REMEDY)


def read_targets(data: Dataset, manifest: DatasetManifest, source: Source) -> Tensor:
    """Classes int64 (n,), or numbers float32 (n, outputs) in their own units, on the CPU.

    Raises EngineError(bad_data) if a class is not one of those of the job.
    """
    facts = data.facts()
    if manifest.kind == "images":
        targets = source.tensors["labels"].clone()
    elif manifest.kind == "arrays":
        targets = source.tensors["targets"].clone()
    else:
        targets = _read_column(column_facts(manifest, data.target or ""), source, facts.task == "classification")
    if facts.task != "classification":
        return targets.float().reshape(len(targets), facts.outputs)
    bad = torch.nonzero((targets < 0) | (targets >= facts.outputs)).flatten()
    if len(bad):
        message = f"the dataset's classes are not 0 to {facts.outputs - 1}, first in row {int(bad[0])}"
        raise EngineError("bad_data", message, REMEDY)
    return targets


def _read_column(column: ColumnFacts, source: Source, classes: bool) -> Tensor:  # noqa: FBT001 - one caller
    if column.kind == "category":
        named = torch.tensor([-1, *classes_of_codes(column)])  # a row without a value has no class
        return named[source.tensors["codes"][:, column.code or 0].long()]
    values = source.tensors["numbers"][:, column.numbers[0]].clone()
    if not classes:
        return values
    if column.kind == "boolean":
        return values.long()
    return _positions(values, torch.tensor(column.values or (0,), dtype=torch.float32))


def _positions(values: Tensor, known: Tensor) -> Tensor:
    """The position of each value among known ones that ascend; -1 for any other."""
    places = torch.searchsorted(known, values).clamp(max=len(known) - 1)
    return torch.where(known[places] == values, places, -1)


def read_split(data: Dataset, manifest: DatasetManifest, source: Source, targets: Tensor) -> SplitIndices:
    """The rows of each split. Raises EngineError(bad_data) if their numbers are not those of the resolved data."""
    sizes, split = data.split(), data.split_by
    if isinstance(split, RandomSplit):
        groups = targets if split.stratify else torch.zeros(len(targets), dtype=torch.int64)
        found = split_indices(groups, sizes, data.split_seed)
    elif isinstance(split, StoredSplit):
        found = split_by_part(source.tensors["split"])
    elif isinstance(split, ColumnSplit | GroupSplit):
        column = column_facts(manifest, split.column)
        parts = torch.tensor([0, *_parts_of_values(data, split, column)], dtype=torch.uint8)
        found = split_by_part(parts[source.tensors["codes"][:, column.code or 0].long()])
    else:
        found = split_tail(len(targets), dataset_split_sizes(data, manifest, len(targets)))
    counts = (len(found.train), len(found.validation), len(found.test))
    if counts != (sizes.train, sizes.validation, sizes.test):
        message = f"the splits have {counts} rows, not {(sizes.train, sizes.validation, sizes.test)}"
        raise EngineError("bad_data", message, REMEDY)
    return found


def _parts_of_values(data: Dataset, split: ColumnSplit | GroupSplit, column: ColumnFacts) -> tuple[int, ...]:
    """The part of each value of a category, in the order of its codes."""
    names = column.categories or ()
    if isinstance(split, GroupSplit):
        return assign_groups(names, column.counts or (), data.split_seed, data.validation, data.test)
    parts = {name: part for part, several in ((1, split.validation), (2, split.test)) for name in several}
    return tuple(parts.get(name, 0) for name in names)
