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


def load_reader(name: FileFormat) -> ReadFormat:
    """The function that reads this format."""
    module, _, function = READERS[name].partition(":")
    found: ReadFormat = getattr(import_module(module), function)
    return found
