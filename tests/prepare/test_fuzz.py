"""Damaged files of every array format: each is read or refused with a reason, whatever was damaged."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.recipe.prepare import FileFormat
from tests.support.prepare import guess_here, prepare_here
from worker.prepare.report import Refused

EXAMPLES = 150


def _npy(array: np.ndarray) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def _zip(compression: int, **members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return made.getvalue()


def _tar(**members: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def _safetensors() -> bytes:
    header = json.dumps(
        {
            "inputs": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]},
            "targets": {"dtype": "I64", "shape": [3], "data_offsets": [24, 48]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(48)


_X, _Y = np.arange(6.0).reshape(3, 2), np.arange(3)
_IMAGES = b"\0\0\x08\x03\0\0\0\x03\0\0\0\x02\0\0\0\x02" + bytes(range(12))
_LABELS = b"\0\0\x08\x01\0\0\0\x03\0\1\2"
VALID = {
    "npy": _npy(_X),
    "npz": _zip(zipfile.ZIP_STORED, x_npy=_npy(_X), y_npy=_npy(_Y)),
    "npz_compressed": _zip(zipfile.ZIP_DEFLATED, x_npy=_npy(np.asfortranarray(_X)), y_npy=_npy(_Y)),
    "safetensors": _safetensors(),
    "idx": _IMAGES,
    "idx_gz": gzip.compress(_IMAGES),
    "idx_tar": _tar(images=_IMAGES, labels=_LABELS),
    "idx_tar_gz": gzip.compress(_tar(images=_IMAGES, labels=_LABELS)),
}
Result = TypeVar("Result")


def read_or_refused(action: Callable[[], Result]) -> Result | None:
    """None: the file was refused, for reasons that can be shown."""
    try:
        return action()
    except Refused as refused:
        if not refused.errors or any(len(problem.detail) > 300 for problem in refused.errors):
            raise AssertionError("refused without a reason that can be shown") from refused
        return None


Damage = st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)


@pytest.mark.parametrize("name", VALID)
def test_the_undamaged_ones_are_read(name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(VALID[name])
        assert prepare_here(path, Path(folder) / "out").examples == 3


@pytest.mark.parametrize("name", VALID)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damage=Damage, cut=st.none() | st.integers(0, 10_000))
def test_a_damaged_file_is_read_or_refused(name: str, damage: list[tuple[int, bytes]], cut: int | None) -> None:
    content = bytearray(VALID[name])
    for place, new in damage:
        start = place % len(content)
        content[start : start + len(new)] = new
    with TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(content[: None if cut is None else cut % len(content)])
        guessed = read_or_refused(lambda: guess_here(path))
        assert guessed is None or guessed in get_args(FileFormat)
        wanted = name.split("_", maxsplit=1)[0]
        examples = read_or_refused(lambda: prepare_here(path, Path(folder) / "out", format=wanted).examples)
        assert examples is None or examples >= 1
