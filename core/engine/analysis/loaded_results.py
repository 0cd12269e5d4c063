"""Results of other analyses, loaded as the input of an assembly: their numbers and arrays."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.engine.analysis.progress import Tensors
from core.engine.failure import EngineError
from core.machine_failure import is_machine_failure
from core.non_finite import decode_non_finite
from core.recipe.analyses import Analysis
from core.recipe.assignment import AnalysisResult


@dataclass(frozen=True, slots=True)
class LoadedResult:
    """The spec of one analysis and its result."""

    label: str
    spec: Analysis
    numbers: Mapping[str, Any]
    arrays: Tensors


def open_results(readings: Sequence[AnalysisResult]) -> tuple[LoadedResult, ...]:
    """Load all results. Raises EngineError if a file cannot be read."""
    return tuple(
        LoadedResult(each.label, each.spec, decode_non_finite(dict(each.numbers)), _read_arrays(each))
        for each in readings
    )


def _read_arrays(reading: AnalysisResult) -> Tensors:
    try:
        with np.load(reading.data, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        if is_machine_failure(error):
            raise
        message = f"the arrays of {reading.label} cannot be read: {error}"
        raise EngineError("engine_error", message, "Compute this one again.") from error
