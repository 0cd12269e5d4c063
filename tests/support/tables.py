"""Prepares bytes in this process, and reads back what was written."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from core.recipe.data.manifest import DatasetManifest
from core.recipe.prepare import PrepareSpec
from worker.prepare.report import FileProblem, Refused, Report
from worker.prepare.source import InputFile
from worker.prepare.table import formats
from worker.prepare.writer import DatasetWriter

DATASET = "ds_" + "0" * 26


@dataclass(frozen=True)
class PreparedTable:
    """A prepared dataset: its manifest, and its tensors with the shards laid end to end."""

    manifest: DatasetManifest
    tensors: dict[str, np.ndarray[Any, Any]]

    def column(self, name: str) -> Any:
        return next(column for column in self.manifest.columns if column.name == name)

    def missing(self, column: int) -> list[bool]:
        """Which rows lack the number in this column of `numbers`."""
        mask = self.tensors["missing"][:, column // 8] >> (column % 8) & 1
        return [bool(each) for each in mask]


def spec_of(format_name: str, options: dict[str, Any] | None = None) -> PrepareSpec:
    body = {"dataset": DATASET, "format": format_name, "options": options or {}}
    return PrepareSpec.model_validate_json(json.dumps(body))


def prepare_table(content: bytes, format_name: str = "csv", **options: Any) -> PreparedTable:
    """Raises Refused where the content is."""
    with TemporaryDirectory() as home:
        file, folder = Path(home) / "input", Path(home) / "out"
        file.write_bytes(content)
        folder.mkdir()
        with file.open("rb") as opened:
            source, spec = InputFile(opened.fileno()), spec_of(format_name, options)
            report = Report(lambda _kind, _fields: None)
            out = DatasetWriter(folder, source, spec, report)
            getattr(formats, f"read_{format_name}")(source, spec, out, report)
            assert out.manifest is not None
            return PreparedTable(out.manifest, read_tensors(folder, out.manifest))


def read_tensors(folder: Path, manifest: DatasetManifest) -> dict[str, np.ndarray[Any, Any]]:
    shards = [load_file(folder / shard.name) for shard in manifest.shards]
    return {name: np.concatenate([shard[name] for shard in shards if name in shard]) for name in manifest.tensors}


def refused(content: bytes, format_name: str = "csv", **options: Any) -> tuple[FileProblem, ...]:
    """The errors of a content that has to be refused."""
    try:
        prepare_table(content, format_name, **options)
    except Refused as error:
        return error.errors
    raise AssertionError(f"not refused: {content[:100]!r}")
