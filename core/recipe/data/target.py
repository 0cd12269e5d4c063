"""The target of an uploaded dataset: its task, and for a classification the index of each class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from core.errors import FieldProblem
from core.recipe.data.columns import show_name
from core.recipe.data.dataset import Dataset
from core.recipe.data.manifest import ColumnFacts, DatasetManifest
from core.recipe.facts import Task
from core.suggest import did_you_mean

MOST_CLASSES: Final = 10_000
MOST_NAMED: Final = 20
MOST_COMPARED: Final = 2000
MOST_SUGGESTED: Final = 3
USUAL_TARGETS: Final = (
    "target",
    "label",
    "labels",
    "class",
    "species",
    "y",
    "outcome",
    "category",
    "diagnosis",
    "price",
)
"""Names of columns that are predicted, the surest first; in any case of letters."""


@dataclass(frozen=True, slots=True)
class DatasetTarget:
    """The task of the data. Of a classification `names` and `counts` are its classes and their rows, by index."""

    task: Task
    outputs: int
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    column: str | None = None


def classes_of(column: ColumnFacts) -> tuple[str, ...]:
    """The classes of a target; the class of a row is the position of its value here.

    Names of a category are in code-point order, a boolean has "false" and "true", whole numbers ascend. Empty where the
    column cannot be the target of a classification.
    """
    if column.kind == "category":
        return tuple(sorted(column.categories or ()))
    if column.kind == "boolean":
        return ("false", "true")
    return tuple(map(str, column.values or ())) if column.kind == "number" else ()


def classes_of_codes(column: ColumnFacts) -> tuple[int, ...]:
    """The class of each code of a category: entry c - 1 is that of code c."""
    names = column.categories or ()
    places = {name: place for place, name in enumerate(sorted(names))}
    return tuple(places[name] for name in names)


def class_counts_of(column: ColumnFacts, rows: int) -> tuple[int, ...]:
    """The rows of each class of a target without missing values, in the order of classes_of."""
    if column.kind == "category":
        counts = dict(zip(column.categories or (), column.counts or (), strict=False))
        return tuple(counts.get(name, 0) for name in classes_of(column))
    if column.kind == "boolean":
        true = round((column.mean or 0.0) * rows)
        return (rows - true, true)
    return column.counts or ()


def resolve_target(data: Dataset, manifest: DatasetManifest) -> DatasetTarget | list[FieldProblem]:
    """The target of the job, or the problems with it; pointers are below /data."""
    if manifest.kind == "tokens":
        return _text_target(data, manifest)
    if data.task == "language_model":
        return [FieldProblem("/data/task", f"{_KINDS[manifest.kind]} are no text", "leave it out")]
    if manifest.kind == "table":
        return _column_target(data, manifest)
    if manifest.kind == "images":
        return _image_target(data, manifest)
    return _array_target(data, manifest)


_KINDS: Final = {"table": "the rows of a table", "images": "images", "arrays": "arrays", "tokens": "tokens"}


def _text_target(data: Dataset, manifest: DatasetManifest) -> DatasetTarget | list[FieldProblem]:
    found = []
    if data.task not in {None, "language_model"}:
        found.append(FieldProblem("/data/task", "a text has no classes and no numbers", 'use "language_model"'))
    if data.context is None:
        found.append(FieldProblem("/data/context", "a text needs the number of tokens in one example", "such as 128"))
    elif data.context >= manifest.examples:
        message = f"the text has {manifest.examples:,} tokens, and an example needs {data.context + 1:,}"
        found.append(FieldProblem("/data/context", message, f"use at most {manifest.examples - 1:,}"))
    return found or DatasetTarget("language_model", manifest.vocabulary or 0)


def _image_target(data: Dataset, manifest: DatasetManifest) -> DatasetTarget | list[FieldProblem]:
    if data.task == "regression":
        return [FieldProblem("/data/task", "images have classes, not numbers", 'use "classification"')]
    if manifest.classes is None or manifest.class_counts is None:
        message, hint = "the images have no classes", "upload one folder for each class, or a manifest with labels"
        return [FieldProblem("/data/dataset", message, hint)]
    return _checked_classes("/data/dataset", None, manifest.classes, manifest.class_counts)


def _array_target(data: Dataset, manifest: DatasetManifest) -> DatasetTarget | list[FieldProblem]:
    targets = manifest.tensors.get("targets")
    if targets is None:
        return [FieldProblem("/data/dataset", "the arrays have no targets", "upload them with an array `targets`")]
    if targets.dtype == "F32":
        if data.task == "classification":
            message = "the targets are not whole numbers"
            return [FieldProblem("/data/task", message, 'use "regression", or upload whole numbers')]
        return DatasetTarget("regression", targets.shape[1] if len(targets.shape) > 1 else 1)
    if data.task == "regression":
        message = "the targets are classes, because they are whole numbers"
        return [FieldProblem("/data/task", message, 'use "classification", or upload the targets as floats')]
    counts = manifest.class_counts or ()
    names = manifest.classes or tuple(map(str, range(len(counts))))
    return _checked_classes("/data/dataset", None, names, counts)


def _column_target(data: Dataset, manifest: DatasetManifest) -> DatasetTarget | list[FieldProblem]:
    columns = {column.name: column for column in manifest.columns}
    if data.target is None:
        guess = likely_target(manifest.columns)
        hint = name_columns(columns) if guess is None else f"most likely {show_name(guess)}; {name_columns(columns)}"
        return [FieldProblem("/data/target", "a table needs the column to predict", hint)]
    column = columns.get(data.target)
    if column is None:
        return [unknown_column("/data/target", data.target, columns)]
    problem = _unfit_column(column, manifest.examples)
    return [problem] if problem else _target_of_task(data.task or _default_task(column), column, manifest.examples)


def _target_of_task(task: Task, column: ColumnFacts, rows: int) -> DatasetTarget | list[FieldProblem]:
    if task == "regression":
        if column.kind != "number":
            message = f"{show_name(column.name)} is a {column.kind}, and a regression predicts a number"
            return [FieldProblem("/data/task", message, 'use "classification"')]
        return DatasetTarget("regression", 1, column=column.name)
    if column.kind == "number" and column.values is None:
        message = f"{show_name(column.name)} has values that are not whole, or more than 1,000 different ones"
        hint = 'use "regression", or upload the column as a category'
        return [FieldProblem("/data/task", message, hint)]
    return _checked_classes("/data/target", column.name, classes_of(column), class_counts_of(column, rows))


def _unfit_column(column: ColumnFacts, rows: int) -> FieldProblem | None:
    """Why the column cannot be a target."""
    name = show_name(column.name)
    if column.kind in {"text", "date"}:
        hint = "choose another column" if column.kind == "date" else "a column of at most 10,000 names is a category"
        return FieldProblem("/data/target", f"{name} is a {column.kind}, which cannot be predicted", hint)
    if column.missing:
        message = f"{name} has no value in {column.missing:,} of {rows:,} rows"
        return FieldProblem("/data/target", message, "upload only the rows that have a value")
    return None


def _default_task(column: ColumnFacts) -> Task:
    return "regression" if column.kind == "number" and column.values != (0, 1) else "classification"


def _checked_classes(
    pointer: str, column: str | None, names: Sequence[str], counts: Sequence[int]
) -> DatasetTarget | list[FieldProblem]:
    """The target of a classification, unless its classes are too few or too many."""
    seen = [name for name, count in zip(names, counts, strict=False) if count]
    if len(seen) < 2:
        of = f" {show_name(seen[0])}" if seen else ""
        return [FieldProblem(pointer, f"every row has the same class{of}", "a classification needs two classes")]
    if len(names) > MOST_CLASSES:
        message = f"{len(names):,} classes; at most {MOST_CLASSES:,} are allowed"
        return [FieldProblem(pointer, message, "predict a number, or group the classes")]
    return DatasetTarget("classification", len(names), tuple(names), tuple(counts), column)


def likely_target(columns: Sequence[ColumnFacts]) -> str | None:
    """The column that is most likely to be predicted: one with a usual name, else the last; None where none can be."""
    fit = [column.name for column in columns if column.kind not in {"text", "date"} and not column.missing]
    named = {name.lower(): name for name in reversed(fit)}
    return next((named[usual] for usual in USUAL_TARGETS if usual in named), fit[-1] if fit else None)


def unknown_column(
    pointer: str, name: str, columns: Sequence[str] | dict[str, ColumnFacts], before: int = 0
) -> FieldProblem:
    """The problem of a name that no column has; `before` unknown names of this job have had their hint."""
    hint = suggest_name(name, columns, before) or name_columns(columns)
    return FieldProblem(pointer, f"there is no column {show_name(name)}", hint)


def suggest_name(name: str, known: Iterable[str], before: int = 0) -> str | None:
    """The closest name; none after MOST_SUGGESTED names: a comparison with 10,000 others takes 0.3 s."""
    return did_you_mean(name, islice(known, MOST_COMPARED)) if before < MOST_SUGGESTED else None


def name_columns(columns: Sequence[str] | dict[str, ColumnFacts]) -> str:
    """The hint that names the columns, at most 20 of them."""
    names = list(columns)
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return f"the columns are {', '.join(map(show_name, names[:MOST_NAMED]))}{more}"
