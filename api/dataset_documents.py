"""The JSON document of a dataset."""

from typing import Any, Final, Literal

from pydantic import BaseModel

from api.json_documents import format_timestamp
from core.jobs.datasets.views import DatasetStatus, DatasetView
from core.recipe.data.manifest import ColumnFacts, DatasetKind

MOST_CATEGORIES: Final = 100  # of one column, in a document
LINKS: Final = ("content", "rows", "events", "schema", "prepare", "cancel", "links")


class DatasetColumn(BaseModel):
    """One column of a table, over all rows. `classes` is how many distinct values a category has."""

    name: str
    kind: str
    missing: int
    classes: int | None = None
    categories: dict[str, int] | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    median: float | None = None
    histogram: list[int] | None = None


class UploadState(BaseModel):
    """An unfinished upload: it continues at `offset`, and is removed at `expires_at` unless it does."""

    offset: int
    bytes: int | None
    piece_bytes: int
    expires_at: str | None


class DatasetError(BaseModel):
    """Why a file was refused: one problem, with its place."""

    file: str | None = None
    row: int | None = None
    column: str | None = None
    code: str
    detail: str


class UploadedDataset(BaseModel):
    """An uploaded dataset: one immutable content. Its name points at the newest ready dataset of that name."""

    id: str
    object: Literal["dataset"]
    project: str
    name: str
    status: DatasetStatus
    version: str | None
    format: str
    filename: str | None
    options: dict[str, Any]
    kind: DatasetKind | None
    examples: int | None
    bytes: int | None
    sha256: str | None
    stored_bytes: int | None
    columns: list[DatasetColumn] | None
    classes: dict[str, int] | None
    splits: dict[str, int] | None
    shapes: dict[str, list[int]] | None
    warnings: list[str]
    errors: list[DatasetError]
    error: dict[str, Any] | None
    progress: dict[str, Any]
    confined: dict[str, Any] | None
    source: dict[str, Any] | None
    upload: UploadState | None
    used_by: int
    created_at: str
    finished_at: str | None
    links: dict[str, str]


def dataset_path(dataset_id: str) -> str:
    return f"/v1/datasets/{dataset_id}"


def dataset_document(view: DatasetView, piece_bytes: int) -> dict[str, Any]:
    """The document; columns, classes and shapes are null where the view has no manifest."""
    manifest, own = view.manifest, dataset_path(view.id)
    plain = ("id", "project", "name", "status", "filename", "options", "kind", "examples", "sha256", "stored_bytes")
    rest = ("warnings", "errors", "error", "confined", "source", "used_by")
    facts = {name: getattr(view, name) for name in (*plain, *rest)}
    splits = None if manifest is None else manifest.split_counts
    return facts | {
        "object": "dataset",
        "version": None if view.version is None or view.status != "ready" else f"sha256:{view.version}",
        "format": view.format if manifest is None else manifest.format,
        "bytes": view.bytes if view.bytes is not None else view.received or None,
        "columns": None if manifest is None else [_column_document(column) for column in manifest.columns],
        "classes": None if manifest is None else _counts(manifest.classes, manifest.class_counts),
        "splits": None if splits is None else dict(zip(("train", "validation", "test"), splits, strict=True)),
        "shapes": None if manifest is None else {name: list(each.shape) for name, each in manifest.tensors.items()},
        "progress": view.progress,
        "upload": _upload_document(view, piece_bytes) if view.status == "uploading" else None,
        "created_at": format_timestamp(view.created_at),
        "finished_at": format_timestamp(view.finished_at),
        "links": {"self": own, **{name: f"{own}/{name}" for name in LINKS}},
    }


def _upload_document(view: DatasetView, piece_bytes: int) -> dict[str, Any]:
    return {
        "offset": view.received,
        "bytes": view.bytes,
        "piece_bytes": piece_bytes,
        "expires_at": format_timestamp(view.expires_at),
    }


def _column_document(column: ColumnFacts) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "kind": column.kind, "missing": column.missing}
    if column.categories is not None:
        found |= {"classes": len(column.categories), "categories": _counts(column.categories, column.counts)}
    numbers = {
        "min": column.minimum,
        "max": column.maximum,
        "mean": column.mean,
        "std": column.std,
        "median": column.median,
    }
    found |= {name: value for name, value in numbers.items() if value is not None}
    if column.histogram is not None:
        found["histogram"] = list(column.histogram)
    return found


def _counts(names: tuple[str, ...] | None, counts: tuple[int, ...] | None) -> dict[str, int] | None:
    """Name -> rows, of the first MOST_CATEGORIES."""
    if names is None or counts is None:
        return None
    return dict(list(zip(names, counts, strict=True))[:MOST_CATEGORIES])
