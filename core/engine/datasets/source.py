"""The tensors of a prepared dataset: mapped from their files, or resident on the device."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.engine.datasets.split import select_rows
from core.engine.failure import EngineError
from core.engine.liveness import ReportAlive
from core.machine_failure import is_machine_failure
from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest, TensorShape

REMEDY: Final = "Delete the worker's copy of the dataset, or upload it again."
DTYPES: Final = {"F32": torch.float32, "U8": torch.uint8, "I32": torch.int32, "I64": torch.int64}


@dataclass(frozen=True, slots=True)
class Source:
    """Tensors by name, with one row for each example; `device` is where rows that are taken go.

    Tensors that are mapped from files are on the CPU, and their pages are the kernel's: they need no memory of the
    process. The rows that are taken are copies, with the same bits from both.
    """

    tensors: Mapping[str, Tensor]
    device: torch.device
    report_alive: ReportAlive | None = None
    """Called before rows are taken, while the transforms are fitted; a batch is a part of its step."""

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        """These rows of each tensor, int64 (b,), on the device."""
        if self.report_alive:
            self.report_alive("dataset")
        return {name: select_rows(each, rows).to(self.device) for name, each in self.tensors.items()}

    def only(self, names: Iterable[str]) -> "Source":
        """The source that has only these tensors."""
        return Source({name: self.tensors[name] for name in names}, self.device, self.report_alive)

    def resident(self) -> "Source":
        """The same tensors in memory, on the device."""
        return Source({name: _copy_to(each, self.device) for name, each in self.tensors.items()}, self.device)


def _copy_to(mapped: Tensor, device: torch.device) -> Tensor:
    return mapped.clone() if device.type == "cpu" else mapped.to(device)


def read_manifest(folder: Path, version: str) -> DatasetManifest:
    """The manifest of a prepared dataset. Raises EngineError(bad_data) if it is not that of this version."""
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
        found = sha256(content).hexdigest()
        if found != version:
            raise EngineError("bad_data", f"the dataset's version is {found}, not {version}", REMEDY)
        return DatasetManifest.model_validate_json(content)
    except (OSError, ValidationError) as error:
        if is_machine_failure(error):
            raise
        raise EngineError("bad_data", f"cannot read the dataset's manifest: {error}", REMEDY) from error


def map_tensors(folder: Path, manifest: DatasetManifest, names: Iterable[str], report_alive: ReportAlive) -> Source:
    """Map `<name>.safetensors` for each name, for fitting on the CPU.

    Raises EngineError(bad_data) if one does not fit the manifest.
    """
    mapped = {name: _map_tensor(folder, name, manifest.tensors.get(name)) for name in names}
    return Source(mapped, torch.device("cpu"), report_alive)


def _map_tensor(folder: Path, name: str, expected: TensorShape | None) -> Tensor:
    path = folder / f"{name}.safetensors"
    try:
        with path.open("rb"):  # safetensors reports errors of the machine without errno
            tensor = load_file(path)[name]
    except (OSError, SafetensorError, KeyError) as error:
        if is_machine_failure(error):
            raise
        raise EngineError("bad_data", f"cannot read the dataset's {name}: {error}", REMEDY) from error
    found = (tensor.dtype, tuple(tensor.shape))
    wanted = (DTYPES.get(expected.dtype), expected.shape) if expected else None
    if found != wanted:
        raise EngineError("bad_data", f"the dataset's {name} are {found}, not {wanted}", REMEDY)
    return tensor
