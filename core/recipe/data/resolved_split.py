"""The sizes of the parts of an uploaded dataset, from its manifest alone."""

from collections.abc import Iterator

from core.errors import FieldProblem
from core.recipe.data.base import SplitSizes, split_sizes
from core.recipe.data.columns import show_name
from core.recipe.data.dataset import Dataset
from core.recipe.data.manifest import ColumnFacts, DatasetManifest
from core.recipe.data.split import (
    ColumnSplit,
    GroupSplit,
    RandomSplit,
    Split,
    StoredSplit,
    TailSplit,
    assign_groups,
)
from core.recipe.data.target import DatasetTarget, suggest_name, unknown_column


def choose_split(data: Dataset, manifest: DatasetManifest, target: DatasetTarget) -> Split:
    """The split of the job with its defaults filled in."""
    split = data.split_by
    if split is None and manifest.split_counts is not None:
        return StoredSplit()
    if split is None and manifest.kind == "tokens":
        return TailSplit()
    if split is None or (isinstance(split, RandomSplit) and split.stratify is None):
        return RandomSplit(stratify=target.task == "classification")
    return split


def dataset_split_sizes(data: Dataset, manifest: DatasetManifest, examples: int) -> SplitSizes:
    """The sizes for a split without problems; `examples` are rows, or windows of a text."""
    split = data.split_by
    if isinstance(split, StoredSplit) and manifest.split_counts:
        return SplitSizes(*_windows(manifest.split_counts, data))
    if isinstance(split, ColumnSplit):
        column = _column(manifest, split.column)
        rows = dict(zip(column.categories or (), column.counts or (), strict=False))
        validation, test = (sum(rows[name] for name in names) for names in (split.validation, split.test))
        return SplitSizes(examples - validation - test, validation, test)
    if isinstance(split, GroupSplit):
        column = _column(manifest, split.column)
        counts = column.counts or ()
        parts = assign_groups(column.categories or (), counts, data.split_seed, data.validation, data.test)
        sizes = [sum(count for count, part in zip(counts, parts, strict=True) if part == which) for which in range(3)]
        return SplitSizes(*sizes)
    return split_sizes(examples, data.validation, data.test)


def _windows(counts: tuple[int, int, int], data: Dataset) -> tuple[int, int, int]:
    """The examples of each part: its rows, or of a text its windows of `context` tokens."""
    if data.context is None:
        return counts
    train, validation, test = (max(0, (tokens - 1) // data.context) for tokens in counts)
    return train, validation, test


def _column(manifest: DatasetManifest, name: str) -> ColumnFacts:
    return next(column for column in manifest.columns if column.name == name)


def split_problems(data: Dataset, manifest: DatasetManifest, target: DatasetTarget) -> Iterator[FieldProblem]:
    """Why the dataset cannot be split as the job asks; pointers are below /data."""
    split = data.split_by
    if isinstance(split, RandomSplit):
        yield from _stratified_problems(data, split, target)
    elif isinstance(split, StoredSplit):
        yield from _stored_problems(manifest)
    elif isinstance(split, ColumnSplit | GroupSplit):
        found = list(_column_problems(data, split.column, manifest))
        if not found and isinstance(split, ColumnSplit):
            found = list(_value_problems(split, _column(manifest, split.column)))
        yield from found
        if not found and dataset_split_sizes(data, manifest, manifest.examples).train < 1:
            yield FieldProblem("/data/split", "validation and test together leave nothing to train on")


def _stratified_problems(data: Dataset, split: RandomSplit, target: DatasetTarget) -> Iterator[FieldProblem]:
    if not split.stratify:
        return
    if target.task != "classification":
        yield FieldProblem("/data/split/stratify", f"a {target.task} has no classes", "leave it out")
    elif data.validation or data.test:
        single = [name for name, count in zip(target.names, target.counts, strict=False) if count == 1]
        if single:
            more = f" and {len(single) - 1:,} other classes have" if len(single) > 1 else " has"
            message = f"the class {show_name(single[0])}{more} one row, which a stratified split cannot divide"
            hint = 'leave these rows out, or use {"by": "random", "stratify": false}'
            yield FieldProblem("/data/split", message, hint)


def _stored_problems(manifest: DatasetManifest) -> Iterator[FieldProblem]:
    if manifest.split_counts is None:
        yield FieldProblem("/data/split/by", "the upload has no parts of its own", 'use "random"')
    elif manifest.split_counts[0] == 0:
        yield FieldProblem("/data/split/by", "the upload has no rows to train on", 'use "random"')


def _column_problems(data: Dataset, name: str, manifest: DatasetManifest) -> Iterator[FieldProblem]:
    """Why a column cannot decide the split."""
    pointer = "/data/split/column"
    if manifest.kind != "table":
        yield FieldProblem("/data/split/by", f"{manifest.kind} have no columns", 'use "random"')
        return
    columns = {column.name: column for column in manifest.columns}
    column = columns.get(name)
    if column is None:
        yield unknown_column(pointer, name, columns)
    elif name == data.target:
        yield FieldProblem(pointer, "the target cannot decide the split", "choose another column")
    elif column.kind == "text":
        message = f"{show_name(name)} is a text: it has more than 10,000 different values"
        yield FieldProblem(pointer, message, "choose a coarser column")
    elif column.kind != "category":
        message = f"{show_name(name)} is a {column.kind}, not a category"
        yield FieldProblem(pointer, message, "upload it as a category, by the option `columns`")
    elif column.missing and isinstance(data.split_by, GroupSplit):
        message = f"{show_name(name)} has no value in {column.missing:,} rows, so that their group is not known"
        yield FieldProblem(pointer, message, "give each row its group")


def _value_problems(split: ColumnSplit, column: ColumnFacts) -> Iterator[FieldProblem]:
    """Values that the column does not have, or that belong to two parts."""
    names_of = column.categories or ()
    known, unknown = set(names_of), 0
    if not split.validation and not split.test:
        yield FieldProblem("/data/split", "no value is for validation or test", 'such as "validation": ["val"]')
    places: dict[str, str] = {}
    for part, names in (("validation", split.validation), ("test", split.test)):
        for index, name in enumerate(names):
            pointer = f"/data/split/{part}/{index}"
            if name in places:
                yield FieldProblem(pointer, f"{show_name(name)} is in the list already, or in that of {places[name]}")
            elif name not in known:
                hint = suggest_name(name, names_of, unknown) or f"it has {', '.join(map(show_name, names_of[:20]))}"
                unknown += 1
                message = f"{show_name(column.name)} has no value {show_name(name)}"
                yield FieldProblem(pointer, message, hint)
            places.setdefault(name, part)
