"""The writer of shards: the same bytes for the same rows, whatever the blocks; safetensors that others read."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from core.recipe.data.manifest import DatasetManifest
from tests.support.prepare import prepare_spec
from worker.prepare import writer as writer_module
from worker.prepare.report import Refused, Report
from worker.prepare.source import InputFile
from worker.prepare.writer import DatasetWriter

ROWS = 250


@contextmanager
def open_writer(folder: Path) -> Iterator[DatasetWriter]:
    path = folder / "source"
    path.write_bytes(b"content")
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    try:
        yield DatasetWriter(folder, InputFile(fd), prepare_spec(), Report(lambda _kind, _fields: None))
    finally:
        os.close(fd)


def blocks(array: np.ndarray, cuts: list[int]) -> Iterator[np.ndarray]:
    for start, end in pairwise(sorted({0, len(array), *cuts})):
        yield array[start:end]


INPUTS = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
LABELS = np.arange(ROWS) % 7


def write(folder: Path, cuts: list[int]) -> tuple[DatasetManifest, dict[str, bytes]]:
    """The manifest and all files of the same rows, cut at these places."""
    with open_writer(folder) as out:
        for block in blocks(LABELS, cuts[::2]):
            out.append("targets", block)
        for block in blocks(INPUTS, cuts):
            out.append("inputs", block)
        out.put("documents", np.array([0, ROWS]))
        manifest = out.finish(kind="arrays", format="npy")
    return manifest, {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, ROWS), max_size=12))
def test_the_sizes_of_blocks_do_not_change_a_byte(cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as one, TemporaryDirectory() as other:
        patch.setattr(writer_module, "SHARD_ROWS", 64)
        whole, cut = write(Path(one), []), write(Path(other), cuts)
    assert whole == cut
    assert len(whole[0].shards) == 5  # 64 + 64 + 64 + 58 rows, and the documents


def test_shards_are_safetensors_in_the_order_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 bytes a row, at most 2,000 bytes a shard: 100 rows."""
    monkeypatch.setattr(writer_module, "SHARD_BYTES", 2_000)
    manifest, files = write(tmp_path, [3, 100])
    assert [shard.rows for shard in manifest.shards] == [100, 100, 50, 0]
    assert [(each.bytes, each.sha256) for each in manifest.shards] == [
        (len(files[each.name]), sha256(files[each.name]).hexdigest()) for each in manifest.shards
    ]
    parts = [load_file(tmp_path / each.name) for each in manifest.shards]
    np.testing.assert_array_equal(np.concatenate([part["inputs"] for part in parts[:-1]]), INPUTS)
    np.testing.assert_array_equal(np.concatenate([part["targets"] for part in parts[:-1]]), LABELS)
    assert parts[-1]["documents"].tolist() == [0, ROWS]
    assert {name: (each.dtype, each.shape) for name, each in manifest.tensors.items()} == {
        "targets": ("I64", (ROWS,)),
        "inputs": ("F32", (ROWS, 3)),
        "documents": ("I64", (2,)),
    }
    assert files["manifest.json"] == manifest.canonical_json()
    assert files.keys() == {each.name for each in manifest.shards} | {"manifest.json"}


def test_tensors_are_aligned(tmp_path: Path) -> None:
    """A map of an odd offset would be slow or refused: the widest types come first, the header has full words."""
    with open_writer(tmp_path) as out:
        out.append("split", np.zeros(3, np.uint8))
        out.append("numbers", np.zeros((3, 1), np.float32))
        out.append("labels", np.zeros(3, np.int64))
        out.finish(kind="table", format="csv")
    content = (tmp_path / "rows-00000.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    assert content[8 : 8 + length].rstrip() == (
        b'{"labels":{"dtype":"I64","shape":[3],"data_offsets":[0,24]},'
        b'"numbers":{"dtype":"F32","shape":[3,1],"data_offsets":[24,36]},'
        b'"split":{"dtype":"U8","shape":[3],"data_offsets":[36,39]}}'
    )


def test_other_byte_orders_and_strides_are_stored_alike(tmp_path: Path) -> None:
    with open_writer(tmp_path) as out:
        out.append("inputs", np.asfortranarray(INPUTS[:10]).astype(">f4"))
        out.append("inputs", INPUTS[10:20][:, ::-1][:, ::-1])
        out.finish(kind="arrays", format="npy")
    np.testing.assert_array_equal(load_file(tmp_path / "rows-00000.safetensors")["inputs"], INPUTS[:20])


@pytest.mark.parametrize(
    "block",
    [np.zeros((2, 3)), np.zeros((2, 3), np.int16), np.zeros((), np.float32), np.zeros((2, 2), np.float32)],
)
def test_another_type_or_shape_is_a_bug_of_the_parser(tmp_path: Path, block: np.ndarray) -> None:
    with open_writer(tmp_path) as out:
        out.append("inputs", np.zeros((2, 3), np.float32))
        with pytest.raises(ValueError, match="inputs"):
            out.append("inputs", block)


def test_tensors_of_different_lengths_are_a_bug_of_the_parser(tmp_path: Path) -> None:
    with open_writer(tmp_path) as out:
        out.append("inputs", INPUTS)
        out.append("targets", LABELS[:-1])
        with pytest.raises(ValueError, match="different lengths"):
            out.finish(kind="arrays", format="npy")


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with open_writer(tmp_path) as out:
        out.append("inputs", INPUTS[:0])
        with pytest.raises(Refused, match="no rows"):
            out.finish(kind="arrays", format="npy")


def test_a_small_file_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source has 7 bytes, so that 1,400 are too many once the limit counts; what was written before stays below."""
    monkeypatch.setattr(writer_module, "RATIO_FROM_BYTES", 2_000)
    with open_writer(tmp_path) as out:
        out.append("inputs", INPUTS[:150])
        with pytest.raises(Refused, match="200 times"):
            out.append("inputs", INPUTS[150:])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 150 * 3 * 4


def test_a_full_disk_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error passes as it is: nothing turns it into a refusal, and no manifest is left."""
    taken = 0
    write_really = os.write

    def write_until_full(fd: int, data: memoryview) -> int:
        nonlocal taken
        taken += len(data)
        if taken > 4_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_really(fd, data)

    monkeypatch.setattr(os, "write", write_until_full)
    with open_writer(tmp_path) as out:
        out.append("inputs", INPUTS)
        with pytest.raises(OSError, match="No space left") as caught:
            out.finish(kind="arrays", format="npy")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "manifest.json").exists()
