"""The manifest of a prepared dataset: what the prepare process writes, the database keeps and the engine reads.

A prepared dataset is a folder of safetensors shards and `manifest.json`. Its version is the SHA-256 of that file, so
the same bytes prepared with the same options have the same version. Nothing in it depends on a clock, a path or a host.
"""

import json
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from core.recipe.component import Spec

MANIFEST_FILE: Final = "manifest.json"
ROW_TENSORS: Final = ("numbers", "missing", "codes", "pixels", "labels", "inputs", "targets", "tokens", "split")
"""The tensors whose first axis is the example (or the token). Shards cut them by rows, in upload order.

table   `numbers` float32 (n, f), missing values as 0 · `missing` uint8 (n, ceil(f / 8)), a bitmask with bit j % 8 of
        byte j // 8 for number j · `codes` int32 (n, c), 0 missing, 1 … k as in `categories`
images  `pixels` uint8 (n, C, H, W) · `labels` int64 (n,), indices into `classes`; absent where there are none
arrays  `inputs` float32 (n, …) · `targets` int64 (n,) or float32 (n, outputs)
tokens  `tokens` uint8 or int32 (n,); and, not cut by rows, `documents` int64 (d + 1,): where each document begins
any     `split` uint8 (n,): 0 train, 1 validation, 2 test; absent where the upload had no split of its own
"""
SPLITS: Final = ("train", "validation", "test")

DatasetKind = Literal["table", "images", "tokens", "arrays"]
ColumnKind = Literal["number", "category", "boolean", "date", "text"]


class StoredSpec(Spec):
    """A document that another release may have written: an unknown field is ignored."""

    model_config = ConfigDict(extra="ignore")


class ShardFile(StoredSpec):
    """One file of the prepared dataset. `rows` is 0 for a file of tensors that are not cut by rows."""

    name: str
    rows: int
    bytes: int
    sha256: str


class TensorShape(StoredSpec):
    """One tensor over all shards; `dtype` in the words of safetensors: F32, U8, I32, I64."""

    dtype: str
    shape: tuple[int, ...]


class ColumnFacts(StoredSpec):
    """One column of a table, over all rows.

    A number has one column of `numbers`, a boolean one (0 or 1), a date DATE_PARTS of them. A category has one column
    of `codes`. A text is not stored: it can neither be a feature nor a target.
    """

    name: str
    kind: ColumnKind
    missing: int = 0
    numbers: tuple[int, ...] = ()
    """Its columns of `numbers`."""
    code: int | None = None
    """Its column of `codes`."""
    categories: tuple[str, ...] | None = None
    """By falling frequency, then by name in code-point order; the code of the first is 1."""
    counts: tuple[int, ...] | None = None
    """The rows of each category, or of each of the `values`."""
    values: tuple[int, ...] | None = None
    """The distinct values of a number, ascending, where all are whole and there are at most MOST_VALUES of them."""
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    median: float | None = None
    histogram: tuple[int, ...] | None = None
    """Rows in 20 bins of equal width from minimum to maximum."""


DATE_PARTS: Final = ("year", "day_sin", "day_cos", "weekday")
MOST_VALUES: Final = 1000
MOST_CATEGORIES: Final = 10_000
"""A column of strings with more distinct values is a text."""


class DatasetManifest(StoredSpec):
    """The whole description of one prepared dataset."""

    manifest: Literal[1] = 1
    kind: DatasetKind
    format: str
    """csv tsv jsonl parquet npy npz safetensors idx images text"""
    examples: Annotated[int, Field(ge=1)]
    """Rows; for tokens, the number of tokens."""
    shards: tuple[ShardFile, ...]
    tensors: dict[str, TensorShape]
    columns: tuple[ColumnFacts, ...] = ()
    classes: tuple[str, ...] | None = None
    class_counts: tuple[int, ...] | None = None
    split_counts: tuple[int, int, int] | None = None
    """Rows that the upload itself gives to train, validation and test."""
    vocabulary: int | None = None
    """How many tokens there are; a short text has fewer than were asked for."""
    tokenizer: dict[str, Any] | None = None
    """{"kind": "bytes"}, or {"kind": "bpe", "vocabulary": as asked for, "tokens": [...], "merges": [...]}"""
    preview: tuple[dict[str, Any], ...] = ()
    """The first rows, at most 20, as JSON values by column name."""
    warnings: tuple[str, ...] = ()
    source_bytes: int = 0
    source_sha256: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    def canonical_json(self) -> bytes:
        """The content of manifest.json: sorted keys, no spaces, UTF-8."""
        document = {"manifest": self.manifest, **self.model_dump(mode="json", exclude_defaults=True)}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def version(self) -> str:
        """SHA-256 of manifest.json in hex."""
        return sha256(self.canonical_json()).hexdigest()

    def stored_bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)
