"""Open a prepared dataset: map its tensors, divide them, fit the transforms on the train split, build the splits.

    folder -> RowSource (mapped) -> targets, split -> fit on the train rows -> resident or mapped splits

The transforms are fitted on the mapped tensors on the CPU, so that access and device change no bit of them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.datasets.augment import Augmentation
from core.engine.datasets.fitting import CHUNK_NUMBERS, fit_moments, fit_pixels
from core.engine.datasets.images import ValueTransform
from core.engine.datasets.loaded import LoadedDataset
from core.engine.datasets.prepared_split import PreparedSplit, Transform, materialise_split
from core.engine.datasets.prepared_targets import column_facts, read_split, read_targets, target_tensors
from core.engine.datasets.resident import add_label_noise
from core.engine.datasets.source import REMEDY, RowSource, map_tensors, read_manifest
from core.engine.datasets.split import Split, select_rows
from core.engine.datasets.standardizer import Standardizer, fit_standardizer, name_standardizers
from core.engine.datasets.tables import TableFit, TableLayout, TableTransform
from core.engine.failure import EngineError
from core.engine.liveness import ReportAlive, report_nothing
from core.recipe.data import Dataset
from core.recipe.data.columns import Numbers
from core.recipe.data.manifest import DatasetManifest
from core.recipe.data.resolved import ResolvedDataset
from core.recipe.data.target import classes_of
from core.recipe.plan import DataAccess

INPUTS: Final = {"images": "pixels", "arrays": "inputs"}
DESCRIPTION: Final = "standardize.description"


@dataclass(frozen=True, slots=True)
class FittedInputs:
    """A transform of the tensors `names`, and what it was fitted to."""

    transform: Transform
    names: tuple[str, ...]
    tensors: dict[str, Tensor]


def load_prepared(
    data: Dataset,
    folder: Path,
    device: torch.device,
    access: DataAccess,
    report_alive: ReportAlive = report_nothing,
) -> LoadedDataset[Split]:
    """The splits of a prepared dataset. Raises EngineError(bad_data) if its files do not fit the job."""
    report_alive("dataset")
    resolved = data.resolved
    if resolved is None or resolved.kind == "tokens":
        raise EngineError("bad_data", "this engine cannot read the dataset", "Use a worker of a later release.")
    manifest = read_manifest(folder, resolved.version)
    names = dict.fromkeys((*target_tensors(data, manifest), *input_tensors(data, manifest)))
    source = map_tensors(folder, manifest, names, report_alive)
    targets = read_targets(data, manifest, source)
    rows = read_split(data, manifest, source, targets)
    if data.label_noise:
        noisy = add_label_noise(targets[rows.train], data.label_noise, data.facts().outputs, data.split_seed)
        targets[rows.train] = noisy
    report_alive("dataset")
    inputs = fit_inputs(data, manifest, source, rows.train, device)
    target_scale = _fit_targets(data, targets, rows.train)
    if target_scale:
        targets = target_scale.apply(targets)
    report_alive("dataset")
    read = RowSource(source.only(inputs.names).tensors, device)
    as_bytes = resolved.kind == "images"  # a quarter of the memory of what the network reads
    if access == "resident" and as_bytes:
        read = read.resident()
    augmentation = Augmentation(data.augment, data.facts().outputs) if data.augment else None
    chunk = max(1, CHUNK_NUMBERS // data.facts().features)

    def split_of(chosen: Tensor, changes: Augmentation | None) -> Split:
        own = select_rows(targets, chosen).to(device)
        split = PreparedSplit(read, chosen, own, inputs.transform, changes, data.split_seed)
        return split if access == "mapped" or as_bytes else materialise_split(split, chunk, report_alive)

    parts = split_of(rows.train, augmentation), split_of(rows.validation, None), split_of(rows.test, None)
    report_alive("other")
    description = describe_inputs(data, resolved, manifest)
    stored = {**inputs.tensors, **name_standardizers(None, target_scale), DESCRIPTION: encode_json(description)}
    return LoadedDataset[Split](*parts, target_scale, stored, rows)


def input_tensors(data: Dataset, manifest: DatasetManifest) -> tuple[str, ...]:
    """The tensors that inputs are made from."""
    return table_layout(data, manifest).tensors if manifest.kind == "table" else (INPUTS[manifest.kind],)


def table_layout(data: Dataset, manifest: DatasetManifest) -> TableLayout:
    """Where the inputs of a table come from. Raises EngineError(bad_data) if the dataset lacks a column."""
    resolved = data.resolved
    for feature in resolved.features if resolved else ():
        column_facts(manifest, feature.column)
    features, cardinalities = (resolved.features, resolved.cardinalities) if resolved else ((), ())
    return TableLayout.of_features(features, manifest.columns, cardinalities)


def fit_inputs(
    data: Dataset, manifest: DatasetManifest, source: RowSource, train: Tensor, device: torch.device
) -> FittedInputs:
    """Fit the transform of the inputs on the train rows of a mapped source."""
    shape = data.facts().input_shape
    if manifest.kind == "table":
        layout = table_layout(data, manifest)
        if (layout.width,) != shape:
            raise EngineError("bad_data", f"the dataset has {layout.width} inputs, not {shape}", REMEDY)
        fitted = TableFit(source, layout, data.numbers or Numbers(), data.split_seed).fit(train)
        return FittedInputs(TableTransform(layout, fitted, device), layout.tensors, fitted)
    name = INPUTS[manifest.kind]
    found = tuple(source.tensors[name].shape[1:])
    if found != shape:
        raise EngineError("bad_data", f"the dataset's {name} are {found}, not {shape}", REMEDY)
    scale, source = None, source.only((name,))

    def read(rows: Tensor) -> Tensor:
        return source.take(rows)[name]

    if data.standardize and manifest.kind == "images":
        scale = fit_pixels(read, train, shape)
    elif data.standardize:
        scale = fit_moments(read, train, data.facts().features, per_channel=len(shape) > 1)
    return FittedInputs(ValueTransform(name, shape, scale, device), (name,), name_standardizers(scale, None))


def _fit_targets(data: Dataset, targets: Tensor, train: Tensor) -> Standardizer | None:
    if not data.standardize or data.facts().task == "classification":
        return None
    return fit_standardizer(select_rows(targets, train), per_channel=False)


def describe_inputs(data: Dataset, resolved: ResolvedDataset, manifest: DatasetManifest) -> dict[str, Any]:
    """What the fitted tensors mean: enough to prepare one more example as the network reads it.

    `columns` has for each column that gives inputs its name, kind and, of a category, its values: that of code c is
    entry c - 1.
    """
    named = {column.name: column for column in manifest.columns}
    used = dict.fromkeys(feature.column for feature in resolved.features)
    target = named.get(data.target or "")
    classes = manifest.classes if target is None else classes_of(target)
    return {
        "version": resolved.version,
        "kind": resolved.kind,
        "task": resolved.task,
        "input_shape": list(resolved.input_shape),
        "classes": list(classes or ()) if resolved.task == "classification" else [],
        "target": data.target,
        "features": [feature.model_dump() for feature in resolved.features],
        "cardinalities": list(resolved.cardinalities),
        "columns": [
            {"name": name, "kind": named[name].kind, "values": list(named[name].categories or ())} for name in used
        ],
        "options": (data.numbers or Numbers()).model_dump() if resolved.kind == "table" else {},
    }


def encode_json(document: dict[str, Any]) -> Tensor:
    """A document as UTF-8 bytes, uint8 (b,): it is stored with the weights."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def decode_json(stored: Tensor) -> dict[str, Any]:
    """The inverse of encode_json()."""
    document: dict[str, Any] = json.loads(bytes(stored.tolist()))
    return document
