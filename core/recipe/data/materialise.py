"""Writes datasets once as safetensors, so that no runner imports scikit-learn (which takes a second).

python -m core.recipe.data.materialise FOLDER [DATASET ...]     each a name, or a job's `data` as JSON
"""

import json
import os
import secrets
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from core.recipe.data import Data, DataSpec
from core.recipe.data.base import SyntheticData
from core.recipe.plugins import plugin_of

BUILT_IN = ("digits", "breast_cancer", "wine", "iris", "diabetes")
VERSION = 1  # part of the file name: files are immutable, so that changed content has a new name


def read_data(text: str) -> DataSpec:
    """A dataset from its name, every field at its default, or from a job's `data` as JSON."""
    return _reader().validate_json(text if text.startswith("{") else json.dumps({"name": text}))


@cache
def _reader() -> TypeAdapter[DataSpec]:
    return TypeAdapter(Data)


def dataset_path(data: DataSpec, folder: Path) -> Path:
    """The path of the materialised dataset; the name of a generated one has a digest of its fields.

    That of a plug-in has its version and files in the digest: another release of it may make other data.
    """
    content = data.content_fields()
    if plugin := plugin_of(type(data)):
        content["plugin"] = plugin.identity
    digest = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return folder / f"{data.name}-{VERSION}{f'-{digest[:32]}' if content else ''}.safetensors"


def materialise_dataset(data: DataSpec, folder: Path) -> Path:
    """Write the dataset unless its file exists. The write is atomic: several processes may call this at once.

    Tensors: `inputs` float32 (N, *input_shape); `targets` int64 (N,), or float32 (N, outputs) for a regression.
    """
    path = dataset_path(data, folder)
    if path.exists():
        return path
    from safetensors.numpy import save

    tensors = data.generate_arrays() if isinstance(data, SyntheticData) else _load_sklearn_dataset(data.name)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{secrets.token_hex(8)}.part"
    with aside.open("xb") as file:
        try:
            aside.chmod(0o640)  # runners may run as another user, in the folder's group
            file.write(save(tensors))
            file.flush()
            os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)  # free the space of a full disk
            raise
    return path


def _load_sklearn_dataset(name: str) -> dict[str, Any]:
    import numpy as np
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    inputs = np.ascontiguousarray(bunch.images[:, None] if name == "digits" else bunch.data, dtype=np.float32)
    if name == "diabetes":
        return {"inputs": inputs, "targets": np.ascontiguousarray(bunch.target[:, None], dtype=np.float32)}
    return {"inputs": inputs, "targets": np.ascontiguousarray(bunch.target, dtype=np.int64)}


if __name__ == "__main__":
    for wanted in sys.argv[2:] or BUILT_IN:
        materialise_dataset(read_data(wanted), Path(sys.argv[1]))
