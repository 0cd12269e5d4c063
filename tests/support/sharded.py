"""A prepared dataset without a prepare process: shards by safetensors' own writer, and the manifest over them."""

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest, ShardFile, TensorShape
from core.store.base import Store
from core.store.keys import dataset_key


def arrays(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "inputs": random.normal(size=(rows, 3, 2)).astype(np.float32),
        "targets": random.integers(0, 5, rows),
        "split": random.integers(0, 3, rows).astype(np.uint8),
    }


def write_prepared(folder: Path, tensors: dict[str, np.ndarray], shard_rows: int = 400) -> DatasetManifest:
    """Shards of `shard_rows` rows and manifest.json in an empty folder."""
    rows = len(tensors["inputs"])
    shards = []
    for number, start in enumerate(range(0, rows, shard_rows)):
        part = {name: each[start : start + shard_rows] for name, each in tensors.items()}
        content, name = save(part), f"rows-{number:05d}.safetensors"
        (folder / name).write_bytes(content)
        shards.append(
            ShardFile(
                name=name, rows=len(part["inputs"]), bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
            )
        )
    words = {"float32": "F32", "int64": "I64", "uint8": "U8"}
    shapes = {name: TensorShape(dtype=words[str(each.dtype)], shape=each.shape) for name, each in tensors.items()}
    manifest = DatasetManifest(kind="arrays", format="npz", examples=rows, shards=tuple(shards), tensors=shapes)
    (folder / MANIFEST_FILE).write_bytes(manifest.canonical_json())
    return manifest


def store_prepared(store: Store, folder: Path, manifest: DatasetManifest) -> str:
    """Put a prepared folder into the store; its version."""
    for name in (*(shard.name for shard in manifest.shards), MANIFEST_FILE):
        store.put_file(folder / name, dataset_key(manifest.version(), name))
    return manifest.version()
