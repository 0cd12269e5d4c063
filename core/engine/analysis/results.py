"""What an analysis reads that puts others' results together: their numbers and arrays."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from core.engine.analysis.desk import Tensors
from core.engine.failure import EngineError
from core.recipe.analyses import Analysis
from core.recipe.assignment import Reading

WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class Result:
    """What one analysis has found, and what it was asked."""

    label: str
    spec: Analysis
    numbers: Mapping[str, Any]
    arrays: Tensors


def open_results(readings: Sequence[Reading]) -> tuple[Result, ...]:
    """All of them. Raises EngineError where a file is not what it should be."""
    return tuple(Result(each.label, each.spec, numeric(dict(each.numbers)), _arrays(each)) for each in readings)


def _arrays(reading: Reading) -> Tensors:
    try:
        with np.load(reading.data, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        message = f"the arrays of {reading.label} cannot be read: {error}"
        raise EngineError("engine_error", message, "Compute this one again.") from error


def numeric(value: Any) -> Any:
    """Numbers as they were before they were written as JSON, which has words where they are not finite."""
    if isinstance(value, str):
        return WORDS.get(value, value)
    if isinstance(value, dict):
        return {name: numeric(each) for name, each in value.items()}
    return [numeric(each) for each in value] if isinstance(value, list) else value
