"""Arrays: .npy, .npz, safetensors and IDX, good ones and every bad one with its message."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.recipe.data.manifest import DatasetManifest
from tests.support.prepare import prepare_here, refusal_of

INPUTS = np.random.default_rng(1).normal(size=(60, 5))
TARGETS = np.arange(60) % 3 + 1


def tensors(folder: Path, manifest: DatasetManifest) -> dict[str, np.ndarray]:
    """All rows of all tensors; these datasets have one shard."""
    assert len(manifest.shards) == 1
    return load_file(folder / manifest.shards[0].name)


def npz(folder: Path, *, compressed: bool = False, **arrays: Any) -> Path:
    path = folder / "data.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("names", [("inputs", "targets"), ("X", "y"), ("x", "y")])
@pytest.mark.parametrize("compressed", [False, True])
def test_inputs_and_targets_by_their_usual_names(tmp_path: Path, names: tuple[str, str], compressed: bool) -> None:
    path = npz(tmp_path, compressed=compressed, **{names[0]: INPUTS, names[1]: TARGETS})
    made = prepare_here(path, tmp_path / "out")
    found = tensors(tmp_path / "out", made)
    np.testing.assert_array_equal(found["inputs"], INPUTS.astype(np.float32))
    np.testing.assert_array_equal(found["targets"], TARGETS - 1)
    assert (made.kind, made.format, made.examples) == ("arrays", "npz", 60)
    assert (made.classes, made.class_counts) == (("1", "2", "3"), (20, 20, 20))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4", "<f2", ">i4", "<i2", "u1", "?"])
def test_any_order_and_number_type(tmp_path: Path, order: Any, dtype: str) -> None:
    values = (np.arange(4 * 3 * 2) % 2 if dtype == "?" else np.arange(4 * 3 * 2)).reshape(4, 3, 2)
    array = np.array(values, dtype=dtype, order=order)
    path = npz(tmp_path, inputs=array.reshape(4, 6, order="A") if dtype == "u1" else array, targets=np.arange(4.0))
    found = tensors(tmp_path / "out", prepare_here(path, tmp_path / "out"))
    np.testing.assert_array_equal(found["inputs"].reshape(-1), np.load(path)["inputs"].astype(np.float32).reshape(-1))
    np.testing.assert_array_equal(found["targets"], np.arange(4, dtype=np.float32)[:, None])


def test_many_blocks_in_fortran_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.prepare.array_source.BLOCK_BYTES", 100)
    path = npz(tmp_path, X=np.asfortranarray(INPUTS), y=TARGETS)
    found = tensors(tmp_path / "out", prepare_here(path, tmp_path / "out"))
    np.testing.assert_array_equal(found["inputs"], INPUTS.astype(np.float32))


def test_text_classes(tmp_path: Path) -> None:
    made = prepare_here(npz(tmp_path, X=INPUTS[:3], y=np.array(["b", "a", "b"])), tmp_path / "out")
    assert (made.classes, made.class_counts) == (("a", "b"), (1, 2))
    assert tensors(tmp_path / "out", made)["targets"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(("axis", "shape"), [(None, (1, 4, 6)), (3, (3, 4, 6)), (1, (3, 4, 6))])
def test_bytes_of_pixels_are_images(tmp_path: Path, axis: int | None, shape: tuple[int, ...]) -> None:
    channels_first = np.random.default_rng(2).integers(0, 256, (7, *shape), dtype=np.uint8)
    stored = channels_first[:, 0] if axis is None else np.moveaxis(channels_first, 1, axis)
    made = prepare_here(npz(tmp_path, X=stored, y=np.arange(7) % 2), tmp_path / "out")
    found = tensors(tmp_path / "out", made)
    assert made.kind == "images"
    np.testing.assert_array_equal(found["pixels"], channels_first)
    assert found["labels"].tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_a_split_that_the_file_has_is_stored(tmp_path: Path) -> None:
    path = npz(tmp_path, x_train=INPUTS[:40], y_train=TARGETS[:40], x_test=INPUTS[40:], y_test=TARGETS[40:])
    made = prepare_here(path, tmp_path / "out")
    assert made.split_counts == (40, 0, 20)
    assert tensors(tmp_path / "out", made)["split"].tolist() == [0] * 40 + [2] * 20


def test_a_lone_array_has_inputs_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", INPUTS)
    made = prepare_here(tmp_path / "a.npy", tmp_path / "out")
    assert made.tensors.keys() == {"inputs"}
    assert "no targets" in made.warnings[0]


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"inputs": INPUTS.astype(np.float16), "targets": TARGETS.astype(np.int32)}, path, {"made": "by us"})
    made = prepare_here(path, tmp_path / "out")
    assert (made.format, made.classes) == ("safetensors", ("1", "2", "3"))
    np.testing.assert_array_equal(tensors(tmp_path / "out", made)["inputs"], INPUTS.astype(np.float16))


def test_brain_floats(tmp_path: Path) -> None:
    """bfloat16 is the upper half of a float32: 1.0, -2.0, 0.5."""
    data = struct.pack("<3H3q", 0x3F80, 0xC000, 0x3F00, 0, 1, 0)
    header = {
        "x": {"dtype": "BF16", "shape": [3, 1], "data_offsets": [0, 6]},
        "y": {"dtype": "I64", "shape": [3], "data_offsets": [6, 30]},
    }
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes(header, data))
    made = prepare_here(path, tmp_path / "out")
    assert tensors(tmp_path / "out", made)["inputs"].tolist() == [[1.0], [-2.0], [0.5]]


def safetensors_bytes(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def idx_bytes(array: np.ndarray) -> bytes:
    codes = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    head = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


PIXELS = np.random.default_rng(3).integers(0, 256, (9, 4, 5), dtype=np.uint8)
DIGITS = (np.arange(9) % 4).astype(np.uint8)


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_idx_of_images_and_labels(tmp_path: Path, ending: str, compress: Any) -> None:
    members = {"train-images-idx3-ubyte": compress(idx_bytes(PIXELS)), "train-labels-idx1": compress(idx_bytes(DIGITS))}
    made = prepare_here(write_archive(tmp_path / f"mnist.{ending}", members), tmp_path / "out")
    found = tensors(tmp_path / "out", made)
    np.testing.assert_array_equal(found["pixels"], PIXELS[:, None])
    np.testing.assert_array_equal(found["labels"], DIGITS)
    assert (made.kind, made.format, made.class_counts) == ("images", "idx", (3, 2, 2, 2))


def test_idx_of_four_files_has_a_split(tmp_path: Path) -> None:
    members = {
        "t10k-images-idx3-ubyte": idx_bytes(PIXELS[:2]),
        "t10k-labels-idx1-ubyte": idx_bytes(DIGITS[:2]),
        "train-images-idx3-ubyte": idx_bytes(PIXELS),
        "train-labels-idx1-ubyte": idx_bytes(DIGITS),
    }
    made = prepare_here(write_archive(tmp_path / "mnist.zip", members), tmp_path / "out")
    found = tensors(tmp_path / "out", made)
    assert made.split_counts == (9, 0, 2)
    np.testing.assert_array_equal(found["pixels"][:9, 0], PIXELS)
    np.testing.assert_array_equal(found["labels"][9:], DIGITS[:2])


def test_idx_alone_and_gzipped(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(values), mtime=0))
    made = prepare_here(tmp_path / "a.gz", tmp_path / "out")
    np.testing.assert_array_equal(tensors(tmp_path / "out", made)["inputs"], values)


def npy_bytes(header: str, data: bytes = b"", *, version: int = 1, length: int | None = None) -> bytes:
    text = header.encode() + b"\n"
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + text + data


def header_of(descr: object, shape: str, fortran: bool = False) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "code", "detail"),
    [
        (npy_bytes(header_of("<f8", "(4294967296,)"), bytes(8)), "array_short", "announces 34,359,738,368 bytes"),
        (npy_bytes(header_of("<f8", f"({2**62}, {2**62})")), "array_short", "announces"),
        (npy_bytes(header_of("<f8", "(-1, 2)")), "array_shape", "(-1, 2)"),
        (npy_bytes(header_of("<f8", "()"), bytes(8)), "array_shape", "()"),
        (npy_bytes(header_of("<f8", "(0, 3)")), "empty", "(0, 3)"),
        (npy_bytes(header_of("<f8", "(1,)"), bytes(16)), "array_long", "8 bytes follow"),
        (npy_bytes(header_of("|O", "(2,)"), bytes(16)), "array_type", "Python objects"),
        (npy_bytes(header_of("<c8", "(2,)"), bytes(16)), "array_type", "complex64"),
        (npy_bytes(header_of("<M8[s]", "(2,)"), bytes(16)), "array_type", "datetime64"),
        (npy_bytes(header_of("|V8", "(2,)"), bytes(16)), "array_type", "V8"),
        (npy_bytes(header_of([("a", "<f8")], "(2,)"), bytes(16)), "array_type", "cannot be used"),
        (npy_bytes(header_of("<U4", "(1,)"), bytes(16)), "array_type", "text"),
        (npy_bytes("(" * 5_000), "unreadable", "not that of a .npy file"),
        (npy_bytes("{", b""), "unreadable", "not that of a .npy file"),
        (npy_bytes(header_of("<f8", "(1,)"), bytes(8), version=2, length=1 << 31), "unreadable", "2,147,483,648"),
        (npy_bytes(header_of("<f8", "(1,)"), bytes(8), version=3), "array_type", "named fields"),
        (npy_bytes(header_of("<f8", "(2,)"), struct.pack("<2d", 1, float("nan"))), "not_finite", "nan"),
        (npy_bytes(header_of("<f8", "(2,)"), struct.pack("<2d", 1, 1e300)), "not_finite", "1e+300"),
        (b"\x93NUMPY", "unreadable", "not a .npy file"),
    ],
)
def test_bad_npy(tmp_path: Path, content: bytes, code: str, detail: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    problem = refusal_of(tmp_path / "a.npy", tmp_path / "out")
    assert (problem.code, detail in problem.detail) == (code, True), problem


def test_a_value_that_is_not_finite_is_named_by_row(tmp_path: Path) -> None:
    inputs = INPUTS.copy()
    inputs[41, 2] = np.inf
    problem = refusal_of(npz(tmp_path, X=inputs, y=TARGETS), tmp_path / "out")
    assert (problem.code, problem.row, problem.column, problem.detail) == (
        "not_finite",
        42,
        "X",
        "inf is not a finite float32",
    )


@pytest.mark.parametrize(
    ("arrays", "code", "detail"),
    [
        ({"features": INPUTS}, "no_targets", "The file has features (60, 5)"),
        ({"X": INPUTS, "labels": TARGETS}, "no_targets", "X (60, 5), labels (60,)"),
        ({"X": INPUTS, "y": TARGETS[:-1]}, "lengths_differ", "59 rows, X has 60"),
        ({"X": INPUTS, "y": np.zeros((60, 2, 2))}, "array_shape", "(60, 2, 2)"),
        ({"X": np.array([["a"]]), "y": np.zeros(1)}, "array_type", "text"),
        ({"X": np.zeros((2, 3, 3), np.uint8), "y": np.zeros(2)}, "array_type", "one class each"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, np.ndarray], code: str, detail: str) -> None:
    problem = refusal_of(npz(tmp_path, **arrays), tmp_path / "out")
    assert (problem.code, detail in problem.detail) == (code, True), problem


def test_pickled_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, X=np.array([{}], dtype=object), y=np.zeros(1))
    assert "run code" in refusal_of(path, tmp_path / "out").detail


ENTRY = {"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]}
SECOND = {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]}


@pytest.mark.parametrize(
    ("header", "data", "code", "detail"),
    [
        ({"x": ENTRY, "y": {**SECOND, "data_offsets": [0, 8]}}, bytes(8), "unreadable", "overlap"),
        ({"x": ENTRY, "y": {**SECOND, "data_offsets": [9, 17]}}, bytes(17), "unreadable", "gap"),
        ({"x": ENTRY, "y": SECOND}, bytes(12), "array_short", "announces 8 bytes"),
        ({"x": ENTRY, "y": SECOND}, bytes(24), "unreadable", "end at byte"),
        ({"x": ENTRY, "y": {**SECOND, "shape": [2]}}, bytes(24), "array_short", "needs 16 bytes, it has 8"),
        ({"x": ENTRY, "y": {**SECOND, "shape": [2**62, 8]}}, bytes(16), "array_short", "announces"),
        ({"x": ENTRY, "y": {**SECOND, "shape": [-1]}}, bytes(16), "unreadable", "not a size"),
        ({"x": ENTRY, "y": {**SECOND, "dtype": "F8_E4M3"}}, bytes(16), "array_type", "F8_E4M3"),
        ({"x": ENTRY, "y": 3}, bytes(16), "array_type", "shape"),
        (b'{"x":1,"x":2}', b"", "unreadable", "a name twice"),
        (b'{"x":' + b"[" * 100_000, b"", "unreadable", "not JSON"),
        (b"{nothing", b"", "unreadable", "not JSON"),
    ],
)
def test_bad_safetensors(tmp_path: Path, header: object, data: bytes, code: str, detail: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes(header, data))
    problem = refusal_of(tmp_path / "a.safetensors", tmp_path / "out")
    assert (problem.code, detail in problem.detail) == (code, True), problem


def test_a_safetensors_header_beyond_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert "announces" in refusal_of(tmp_path / "a", tmp_path / "out", format="safetensors").detail


@pytest.mark.parametrize(
    ("members", "code", "detail"),
    [
        ({"labels-idx1": idx_bytes(DIGITS)}, "no_inputs", "labels alone"),
        ({"images-idx3": idx_bytes(PIXELS), "labels-idx1": idx_bytes(DIGITS[:-1])}, "lengths_differ", "8 rows"),
        ({"images-idx3": idx_bytes(PIXELS)[:-1], "labels-idx1": idx_bytes(DIGITS)}, "array_short", "announces 180"),
        ({"images-idx3": idx_bytes(PIXELS) + b"x", "labels-idx1": idx_bytes(DIGITS)}, "array_long", "1 bytes"),
        ({"images-idx3": idx_bytes(PIXELS), "readme-idx": b"hello world"}, "unreadable", "not an IDX file"),
        ({"a-idx3": idx_bytes(PIXELS), "b-idx3": idx_bytes(PIXELS), "c": idx_bytes(DIGITS)}, "no_targets", "b-idx3"),
        (
            {"images-idx3": gzip.compress(idx_bytes(PIXELS), mtime=0)[:-9], "l": idx_bytes(DIGITS)},
            "unreadable",
            "in the middle",
        ),
    ],
)
def test_bad_idx(tmp_path: Path, members: dict[str, bytes], code: str, detail: str) -> None:
    problem = refusal_of(write_archive(tmp_path / "a.zip", members), tmp_path / "out")
    assert (problem.code, detail in problem.detail) == (code, True), problem
