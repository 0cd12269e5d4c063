"""The formats, each with the function that reads it. A new one: its line here, its module, its word in FileFormat."""

from collections.abc import Callable
from importlib import import_module
from typing import Final

from core.recipe.prepare import FileFormat, PrepareSpec
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.writer import DatasetWriter

ReadFormat = Callable[[InputFile, PrepareSpec, DatasetWriter, Report], None]
"""Reads the whole input and ends with `DatasetWriter.finish`. Raises Refused where the file is bad."""

READERS: Final[dict[FileFormat, str]] = {
    "npy": "worker.prepare.arrays:read_npy",
    "npz": "worker.prepare.arrays:read_npz",
    "safetensors": "worker.prepare.arrays:read_safetensors",
    "idx": "worker.prepare.idx:read_idx",
}
"""Format -> `module:function`."""

OPTIONS: Final[dict[FileFormat, frozenset[str]]] = {
    "csv": frozenset({"delimiter", "header", "encoding", "columns", "missing"}),
    "tsv": frozenset({"delimiter", "header", "encoding", "columns", "missing"}),
    "jsonl": frozenset({"encoding", "columns", "missing", "text_field", "tokenizer"}),
    "parquet": frozenset({"columns", "missing"}),
    "images": frozenset({"size", "channels"}),
    "text": frozenset({"encoding", "tokenizer"}),
}
"""Format -> its fields of PrepareOptions; a format that is not named has none."""


def check_options(name: FileFormat, spec: PrepareSpec, report: Report) -> None:
    """Raises Refused where an option is given that the format does not have."""
    given = spec.options.model_dump(exclude_defaults=True).keys()
    for option in sorted(given - OPTIONS.get(name, frozenset())):
        report.error("unknown_option", f"{option} is no option of the format {name}")
    report.check()


def load_reader(name: FileFormat) -> ReadFormat:
    """The function that reads this format."""
    module, _, function = READERS[name].partition(":")
    found: ReadFormat = getattr(import_module(module), function)
    return found
