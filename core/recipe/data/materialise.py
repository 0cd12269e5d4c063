"""Writes the built-in datasets once as safetensors, so that no runner imports scikit-learn (which costs it a second).

python -m core.recipe.data.materialise FOLDER [NAME ...]
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

BUILT_IN = ("digits", "breast_cancer", "wine", "iris", "diabetes")
VERSION = 1  # part of the file name: a change of content is a new file, never a changed one


def dataset_path(name: str, folder: Path) -> Path:
    """Where the materialised dataset lies."""
    return folder / f"{name}-{VERSION}.safetensors"


def materialise(name: str, folder: Path) -> Path:
    """Write the dataset unless it is there. Atomic: several processes may do it at once, each reader sees a whole file.

    Tensors: `inputs` float32 (N, *input_shape); `targets` int64 (N,), or float32 (N, 1) for regression.
    """
    path = dataset_path(name, folder)
    if path.exists():
        return path
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
        file.write(save(_load(name)))
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    return path


def _load(name: str) -> dict[str, Any]:
    import numpy as np
    from sklearn import datasets

    if name not in BUILT_IN:
        raise ValueError(f"no built-in dataset {name!r}; there are {', '.join(BUILT_IN)}")
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    inputs = np.ascontiguousarray(bunch.images[:, None] if name == "digits" else bunch.data, dtype=np.float32)
    if name == "diabetes":
        return {"inputs": inputs, "targets": np.ascontiguousarray(bunch.target[:, None], dtype=np.float32)}
    return {"inputs": inputs, "targets": np.ascontiguousarray(bunch.target, dtype=np.int64)}


if __name__ == "__main__":
    for wanted in sys.argv[2:] or BUILT_IN:
        materialise(wanted, Path(sys.argv[1]))
