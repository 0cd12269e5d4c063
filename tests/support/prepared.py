"""Prepared datasets as a worker lays them out: manifest.json, and one file for each tensor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from core.recipe.data import Dataset, DataSpec
from core.recipe.data.manifest import MANIFEST_FILE, ColumnFacts, DatasetManifest, TensorShape
from core.recipe.data.resolve import resolve_dataset
from core.recipe.parse import parse_job
from core.recipe.spec import JobSpec

DATASET = "ds_" + "0" * 26
WORDS = {torch.float32: "F32", torch.uint8: "U8", torch.int32: "I32", torch.int64: "I64"}


def write_prepared(folder: Path, kind: Any, tensors: dict[str, Tensor], **fields: Any) -> DatasetManifest:
    """Write the dataset into a new folder."""
    folder.mkdir(parents=True)
    shapes = {name: TensorShape(dtype=WORDS[each.dtype], shape=tuple(each.shape)) for name, each in tensors.items()}
    examples = len(next(iter(tensors.values())))
    manifest = DatasetManifest(kind=kind, format="csv", examples=examples, shards=(), tensors=shapes, **fields)
    for name, each in tensors.items():
        save_file({name: each.contiguous()}, folder / f"{name}.safetensors")
    (folder / MANIFEST_FILE).write_bytes(manifest.canonical_json())
    return manifest


def dataset_of(manifest: DatasetManifest, **fields: Any) -> Dataset:
    """A job's `data`, resolved."""
    spec = Dataset.model_validate_json(json.dumps({"name": "dataset", "dataset": "mine", **fields}))
    return resolve_dataset(spec, DATASET, manifest)


def job_on(manifest: DatasetManifest, data: dict[str, Any], **fields: Any) -> JobSpec:
    """A job on the dataset, resolved as the api does it."""
    base = {
        "model": {"name": "mlp", "hidden": [16]},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "batch_size": 24,
        "epochs": 3,
    }
    body = json.dumps({**base, "data": {"name": "dataset", "dataset": "mine", **data}, **fields})
    return parse_job(body.encode(), resolve_with(manifest))


def resolve_with(manifest: DatasetManifest) -> Callable[[DataSpec], DataSpec]:
    """A look-up that knows one dataset."""

    def resolve(data: DataSpec) -> DataSpec:
        return resolve_dataset(data, DATASET, manifest) if isinstance(data, Dataset) else data

    return resolve


def category(name: str, values: list[str | None], code: int) -> tuple[ColumnFacts, Tensor]:
    """A column of strings as the manifest says it, and its codes int32 (n,)."""
    counts = {value: values.count(value) for value in values if value is not None}
    names = sorted(counts, key=lambda value: (-counts[value], value))
    codes = {value: place for place, value in enumerate(names, 1)}
    facts = ColumnFacts(
        name=name,
        kind="category",
        missing=values.count(None),
        code=code,
        categories=tuple(names),
        counts=tuple(counts[value] for value in names),
    )
    return facts, torch.tensor([0 if value is None else codes[value] for value in values], dtype=torch.int32)


def number(name: str, values: list[float | None], place: int) -> ColumnFacts:
    """A column of numbers as the manifest says it."""
    known = [value for value in values if value is not None]
    whole = sorted({int(value) for value in known}) if all(value == int(value) for value in known) else None
    counts = tuple(known.count(value) for value in whole) if whole else None
    facts = {"missing": len(values) - len(known), "numbers": (place,), "counts": counts}
    return ColumnFacts(name=name, kind="number", values=tuple(whole) if whole else None, **facts)


def numbers_and_mask(columns: list[list[float | None]]) -> dict[str, Tensor]:
    """The tensors `numbers` and `missing` of these columns."""
    numbers = torch.tensor([[value or 0.0 for value in column] for column in columns]).T.contiguous()
    missing = torch.zeros(len(columns[0]), -(-len(columns) // 8), dtype=torch.uint8)
    for place, column in enumerate(columns):
        bits = torch.tensor([value is None for value in column], dtype=torch.uint8)
        missing[:, place // 8] |= bits << (place % 8)
    return {"numbers": numbers, "missing": missing}
