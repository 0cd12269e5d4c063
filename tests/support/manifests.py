"""Manifests of small datasets, written by hand, and the look-up of a job's data among them."""

import json
from typing import Any

from core.recipe.data import Dataset, DataSpec
from core.recipe.data.manifest import ColumnFacts, DatasetManifest, TensorShape
from core.recipe.data.resolve import resolve_dataset
from core.recipe.parse import ResolveData

ROWS = 60


def number(name: str, at: int, **facts: Any) -> ColumnFacts:
    """A number whose values are not whole."""
    told = {"minimum": 0.5, "maximum": 9.5, "mean": 4.0, "std": 2.0, "median": 4.0} | facts
    return ColumnFacts(name=name, kind="number", numbers=(at,), **told)


def category(name: str, code: int, counts: dict[str, int], missing: int = 0) -> ColumnFacts:
    """A category whose values come as `counts` has them, which is by falling frequency."""
    return ColumnFacts(
        name=name,
        kind="category",
        code=code,
        missing=missing,
        categories=tuple(counts),
        counts=tuple(counts.values()),
    )


def numbered(name: str, code: int, sizes: list[int]) -> ColumnFacts:
    """A category with the values v00, v01 …"""
    return category(name, code, {f"v{index:02}": size for index, size in enumerate(sizes)})


COLUMNS = (
    number("length", 0, missing=2),
    number("weight", 1),
    ColumnFacts(name="alive", kind="boolean", numbers=(2,), minimum=0, maximum=1, mean=0.25, values=(0, 1)),
    ColumnFacts(name="seen", kind="date", numbers=(3, 4, 5, 6), missing=1),
    category("species", 0, {"wren": 30, "Owl": 20, "auk": 10}),
    category("island", 1, {"north": 40, "south": 17}, missing=3),
    numbered("ring", 2, [4] * 10 + [2] * 10),
    category("part", 3, {"fit": 40, "check": 12, "exam": 8}),
    ColumnFacts(name="notes", kind="text"),
    number("legs", 7, values=(1, 2), counts=(3, 57), minimum=1, maximum=2),
    number("sold", 8, values=(0, 1), counts=(31, 29), minimum=0, maximum=1),
    ColumnFacts(name="unused", kind="number", numbers=(9,), missing=ROWS),
)
"""One of every kind, and what is special: missing values, an empty column, whole numbers, a column of a split."""


def table(*columns: ColumnFacts, rows: int = ROWS, **facts: Any) -> DatasetManifest:
    found = columns or COLUMNS
    codes = sum(each.code is not None for each in found)
    return DatasetManifest(
        kind="table",
        format="csv",
        examples=rows,
        shards=(),
        tensors={
            "numbers": TensorShape(dtype="F32", shape=(rows, sum(len(each.numbers) for each in found))),
            "codes": TensorShape(dtype="I32", shape=(rows, codes)),
        },
        columns=found,
        **facts,
    )


def images(
    shape: tuple[int, int, int] = (3, 8, 8), counts: dict[str, int] | None = None, **facts: Any
) -> DatasetManifest:
    """Pictures with a class each; an empty `counts` means none."""
    known = {"cat": 20, "dog": 40} if counts is None else counts
    rows = sum(known.values()) or ROWS
    labels: dict[str, Any] = {"classes": tuple(known), "class_counts": tuple(known.values())} if known else {}
    return DatasetManifest(
        kind="images",
        format="images",
        examples=rows,
        shards=(),
        tensors={"pixels": TensorShape(dtype="U8", shape=(rows, *shape))},
        **labels,
        **facts,
    )


def arrays(targets: TensorShape | None, inputs: tuple[int, ...] = (7,), **facts: Any) -> DatasetManifest:
    tensors = {"inputs": TensorShape(dtype="F32", shape=(ROWS, *inputs))}
    return DatasetManifest(
        kind="arrays",
        format="npz",
        examples=ROWS,
        shards=(),
        tensors=tensors | ({"targets": targets} if targets else {}),
        **facts,
    )


def text(tokens: int = 1001, **facts: Any) -> DatasetManifest:
    return DatasetManifest(
        kind="tokens",
        format="text",
        examples=tokens,
        shards=(),
        tensors={"tokens": TensorShape(dtype="U8", shape=(tokens,))},
        vocabulary=256,
        tokenizer={"kind": "bytes"},
        **facts,
    )


MANIFESTS = {
    "birds": table(),
    "photos": images(),
    "springs": arrays(TensorShape(dtype="F32", shape=(ROWS, 2))),
    "tale": text(),
}


def look_up_among(manifests: dict[str, DatasetManifest]) -> ResolveData:
    """The look-up by name; the id of a dataset is `ds_` and its name."""

    def look_up(data: DataSpec) -> DataSpec:
        if not isinstance(data, Dataset):
            return data
        name = data.dataset.removeprefix("ds_")
        return resolve_dataset(data, f"ds_{name}", manifests[name])

    return look_up


look_up = look_up_among(MANIFESTS)


def looked_up(**fields: Any) -> dict[str, Any]:
    """The JSON of a job's data after the look-up, without its name."""
    data = look_up(Dataset.model_validate_json(json.dumps({"name": "dataset", **fields})))
    return {field: value for field, value in data.dump().items() if field != "name"}


def resolve(manifest: DatasetManifest, **fields: Any) -> Dataset:
    """The resolved data of a job with these fields."""
    data = Dataset.model_validate_json(json.dumps({"name": "dataset", "dataset": "mine", **fields}))
    return resolve_dataset(data, "ds_0", manifest)
