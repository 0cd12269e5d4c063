"""The inputs that a model gets from the columns of a table, from the manifest alone."""

from collections.abc import Iterator, Sequence
from typing import Final

from core.errors import FieldProblem
from core.recipe.data.columns import MOST_ONE_HOT, Categories, show_name
from core.recipe.data.dataset import Dataset
from core.recipe.data.manifest import ColumnFacts, DatasetManifest
from core.recipe.data.resolved import TableFeature
from core.recipe.data.split import ColumnSplit, GroupSplit
from core.recipe.data.target import unknown_column

MOST_INPUTS: Final = 65_536


def table_features(data: Dataset, manifest: DatasetManifest) -> tuple[TableFeature, ...]:
    """The inputs side by side: numbers, then missing marks, then one-hot, then codes; each in the order of the upload.

    Whether a column has a mark, and how many values a category keeps, follows from the whole dataset.
    """
    columns = [
        column for column in feature_columns(data, manifest) if has_content(column, manifest.examples, data.categories)
    ]
    numeric = [column for column in columns if column.kind != "category"]
    kept = [(column.name, kept_categories(column, data.categories)) for column in columns if column.kind == "category"]
    embedded = {name for name, count in kept if _is_embedded(count, data.categories)}
    return (
        *(TableFeature(column=each.name, form="number", width=len(each.numbers)) for each in numeric),
        *(TableFeature(column=each.name, form="missing", width=1) for each in numeric if each.missing),
        *(TableFeature(column=name, form="one_hot", width=count) for name, count in kept if name not in embedded),
        *(TableFeature(column=name, form="code", width=1) for name, _ in kept if name in embedded),
    )


def table_cardinalities(data: Dataset, manifest: DatasetManifest, features: Sequence[TableFeature]) -> tuple[int, ...]:
    """The number of codes of each embedded category: the kept values, and code 0."""
    columns = {column.name: column for column in manifest.columns}
    embedded = [columns[feature.column] for feature in features if feature.form == "code"]
    return tuple(kept_categories(column, data.categories) + 1 for column in embedded)


def feature_columns(data: Dataset, manifest: DatasetManifest) -> list[ColumnFacts]:
    """The columns that the job uses as features, in the order of the upload; without target, texts and the split's."""
    reserved = {data.target, split_column(data)}
    chosen = [column for column in manifest.columns if column.name not in reserved and column.kind != "text"]
    if data.features and data.features.include is not None:
        return [column for column in chosen if column.name in set(data.features.include)]
    excluded = set(data.features.exclude or ()) if data.features else set()
    return [column for column in chosen if column.name not in excluded]


def split_column(data: Dataset) -> str | None:
    """The column that decides the split, which is no feature."""
    return data.split_by.column if isinstance(data.split_by, ColumnSplit | GroupSplit) else None


def kept_categories(column: ColumnFacts, options: Categories | None) -> int:
    """How many values of a category have a code of their own: the first, because they come by falling frequency."""
    rules = options or Categories()
    kept = sum(count >= rules.min_count for count in column.counts or ())
    return kept if rules.max_categories is None else min(kept, rules.max_categories)


def has_content(column: ColumnFacts, rows: int, options: Categories | None) -> bool:
    """Whether the column gives any input: a number that has a value, a category that keeps one."""
    if column.kind == "category":
        return kept_categories(column, options) > 0
    return column.missing < rows


def _is_embedded(kept: int, options: Categories | None) -> bool:
    encode = (options or Categories()).encode
    return encode == "embed" or (encode == "auto" and kept > MOST_ONE_HOT)


def feature_problems(data: Dataset, manifest: DatasetManifest) -> Iterator[FieldProblem]:
    """Names that are no columns, columns that cannot be features, and a table without any feature."""
    columns = {column.name: column for column in manifest.columns}
    named = data.features.include or data.features.exclude or () if data.features else ()
    field = "include" if data.features and data.features.include is not None else "exclude"
    found: list[FieldProblem] = []
    for index, name in enumerate(named):
        pointer = f"/data/features/{field}/{index}"
        if name not in columns:
            found.append(unknown_column(pointer, name, columns, len(found)))
        elif field == "include" and (reason := _no_feature(data, columns[name], manifest.examples)):
            found.append(FieldProblem(pointer, f"{show_name(name)} {reason}", "leave it out"))
    yield from found
    if found:
        return
    width = sum(feature.width for feature in table_features(data, manifest))
    if width == 0:
        yield FieldProblem("/data/features", "no feature is left", "the target, texts and empty columns are none")
    elif width > MOST_INPUTS:
        message = f"the columns give {width:,} inputs; at most {MOST_INPUTS:,} are allowed"
        yield FieldProblem("/data/categories", message, 'use "encode": "embed", or a smaller max_categories')


def _no_feature(data: Dataset, column: ColumnFacts, rows: int) -> str | None:
    if column.name == data.target:
        return "is the target"
    if column.name == split_column(data):
        return "decides the split"
    if column.kind == "text":
        return "is a text, which no model of this release takes"
    return None if has_content(column, rows, data.categories) else "has no value that is kept"
