"""Properties of an uploaded dataset that are allowed and probably not intended."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from core.recipe.data.columns import show_name
from core.recipe.data.dataset import Dataset
from core.recipe.data.manifest import ColumnFacts, DatasetManifest
from core.recipe.data.resolved import DatasetWarning
from core.recipe.data.table_features import feature_columns, has_content
from core.recipe.data.target import DatasetTarget

LARGEST_EXACT: Final = 2**24
"""float32 holds every whole number up to here."""
UNBALANCED: Final = 100
"""The ratio of the largest to the smallest class, above which a warning is due."""
FEW_VALUES: Final = 20
FEWEST_ROWS: Final = 20
"""With fewer rows, distinct values are no sign of an id."""
MOST_NAMED: Final = 5


def dataset_warnings(data: Dataset, manifest: DatasetManifest, target: DatasetTarget) -> Iterator[DatasetWarning]:
    """Each with a code, the field that changes it, and its effect on the job."""
    if manifest.kind == "table":
        yield from _column_warnings(data, manifest)
    if target.column is not None and target.task == "regression":
        yield from _class_like_target(manifest, target.column)
    counts = [count for count in target.counts if count]
    if counts and max(counts) > UNBALANCED * min(counts):
        rarest, commonest = (target.names[target.counts.index(each)] for each in (min(counts), max(counts)))
        message = (
            f"the classes are very unbalanced: {show_name(commonest)} has {max(counts):,} rows and "
            f"{show_name(rarest)} has {min(counts):,}"
        )
        yield DatasetWarning(
            code="unbalanced_classes", pointer="/data/target" if target.column else "/data/dataset", message=message
        )


def _column_warnings(data: Dataset, manifest: DatasetManifest) -> Iterator[DatasetWarning]:
    unwanted = set((data.features and data.features.exclude) or ())
    texts = [each.name for each in manifest.columns if each.kind == "text" and each.name not in unwanted]
    if texts and not (data.features and data.features.include):
        yield _warning("text_left_out", texts, "text: no model of this release takes it, and it is left out")
    columns = feature_columns(data, manifest)
    if empty := [each.name for each in columns if not has_content(each, manifest.examples, data.categories)]:
        yield _warning("empty_left_out", empty, "without a value that is kept, and left out")
    if ids := [each.name for each in columns if looks_like_id(each, manifest.examples)]:
        yield _warning("looks_like_id", ids, "different in every row: an id says nothing about new rows")
    if large := [each.name for each in columns if _loses_digits(each)]:
        yield _warning("beyond_float32", large, "beyond 16,777,216: float32 rounds such whole numbers")


def _warning(code: str, names: Sequence[str], what: str) -> DatasetWarning:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    shown = f"{', '.join(map(show_name, names[:MOST_NAMED]))}{more}"
    verb = "are" if len(names) > 1 else "is"
    return DatasetWarning(code=code, pointer="/data/features", message=f"{shown} {verb} {what}")


def looks_like_id(column: ColumnFacts, rows: int) -> bool:
    """Whether each row has a value of its own: a name, or a number in a row of consecutive whole numbers."""
    if column.missing or rows < FEWEST_ROWS:
        return False
    if column.kind == "category":
        return len(column.categories or ()) == rows
    if column.kind != "number" or column.minimum is None or column.maximum is None:
        return False
    if column.values is not None:
        return len(column.values) == rows and column.maximum - column.minimum == rows - 1
    # More values than the manifest lists: the moments of 0 … n - 1 distinguish them from other numbers of this range.
    middle, spread = (column.minimum + column.maximum) / 2, math.sqrt((rows**2 - 1) / 12)
    return (
        column.maximum - column.minimum == rows - 1
        and math.isclose(column.mean or 0.0, middle, rel_tol=1e-6, abs_tol=1e-3)
        and math.isclose(column.std or 0.0, spread, rel_tol=1e-3)
    )


def _loses_digits(column: ColumnFacts) -> bool:
    ends = [each for each in (column.minimum, column.maximum) if each is not None]
    return (
        column.kind == "number"
        and any(abs(each) > LARGEST_EXACT for each in ends)
        and all(float(each).is_integer() for each in ends)
    )


def _class_like_target(manifest: DatasetManifest, name: str) -> Iterator[DatasetWarning]:
    column = next(each for each in manifest.columns if each.name == name)
    if column.values is not None and len(column.values) <= FEW_VALUES:
        message = (
            f'{show_name(name)} has {len(column.values)} whole values; "task": "classification" makes them classes'
        )
        yield DatasetWarning(code="looks_like_classes", pointer="/data/task", message=message)
