"""The datasets of the check: generated, or numbers that stand for a table that scikit-learn would bring."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from core.recipe.data import DataSpec
from core.recipe.data.base import SyntheticData
from core.recipe.data.generated import StableRandom
from core.recipe.data.materialise import dataset_path, materialise_dataset


def dataset(data: DataSpec, folder: Path) -> Path:
    """The file of a dataset, made once."""
    if isinstance(data, SyntheticData):
        return materialise_dataset(data, folder)
    path, facts = dataset_path(data, folder), data.facts()
    if not path.exists():
        draws = StableRandom(0)
        inputs = draws.normal(facts.examples, *facts.input_shape)
        targets = inputs.reshape(facts.examples, -1)[:, : facts.outputs] + 0.1 * draws.normal(facts.examples, 1)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"inputs": inputs.astype(np.float32), "targets": targets.astype(np.float32)}, path)
    return path
