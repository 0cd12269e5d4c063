"""Damaged files of every format: a parser refuses them with a reason or prepares them; nothing else happens.

FUZZ_CASES sets how many files of each format are tried. A parser that takes longer than ALARM_SECONDS hangs.
"""

import gzip
import io
import json
import os
import signal
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from tests.support.prepare import prepare_here, refusal_of
from worker.prepare.report import MOST_ERRORS, Refused

CASES: Final = int(os.environ.get("FUZZ_CASES", "40"))
ALARM_SECONDS: Final = 30
ROWS: Final = 40


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def csv_file() -> bytes:
    lines = ["id,price,kind,when,flag,split"]
    kinds, splits = ("red", "green", "", "blue, light"), ("train", "val", "test")
    lines += [
        f'{row},{row / 7},"{kinds[row % 4]}",2026-01-{row % 28 + 1:02d},{"yes" if row % 2 else "no"},{splits[row % 3]}'
        for row in range(ROWS)
    ]
    return "\n".join(lines).encode()


def jsonl_file() -> bytes:
    rows = [{"a": row / 3, "b": None if row % 5 else "x", "c": row % 2 == 0} for row in range(ROWS)]
    return "\n".join(map(json.dumps, rows)).encode()


def parquet_file() -> bytes:
    table = pa.table({"a": list(range(ROWS)), "b": [f"k{row % 3}" for row in range(ROWS)], "c": [1.5] * ROWS})
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=16)
    return out.getvalue()


def npy_file() -> bytes:
    out = io.BytesIO()
    np.save(out, _rng().normal(size=(ROWS, 3)).astype(np.float32))
    return out.getvalue()


def npz_file() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, inputs=_rng().normal(size=(ROWS, 3)), targets=np.arange(ROWS) % 3)
    return out.getvalue()


def safetensors_file() -> bytes:
    return save({"inputs": np.ones((ROWS, 3), np.float32), "targets": np.arange(ROWS) % 3})


def idx_file() -> bytes:
    """Images and labels of MNIST's kind in a tar."""
    images = struct.pack(">HBB3I", 0, 8, 3, 6, 4, 4) + bytes(range(96))
    labels = struct.pack(">HBBI", 0, 8, 1, 6) + bytes(range(6))
    return _tar({"images-idx3-ubyte": images, "labels-idx1-ubyte.gz": gzip.compress(labels, mtime=0)})


def _pictures() -> dict[str, bytes]:
    found = {}
    for number, form in enumerate(("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")):
        out = io.BytesIO()
        Image.new("RGB", (5, 4), (number * 40, 7, 90)).save(out, form)
        found[f"{'ab'[number % 2]}/{number}.{form.lower()}"] = out.getvalue()
    return found


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zip_of_images() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _pictures().items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def tar_of_images() -> bytes:
    return _tar(_pictures())


def text_file() -> bytes:
    return ("Grüße, Romeo!\n" * 20).encode()


FILES: Final[dict[str, tuple[str, Callable[[], bytes], dict[str, Any]]]] = {
    "csv": ("csv", csv_file, {}),
    "tsv": ("tsv", lambda: csv_file().replace(b",", b"\t"), {}),
    "jsonl": ("jsonl", jsonl_file, {}),
    "parquet": ("parquet", parquet_file, {}),
    "npy": ("npy", npy_file, {}),
    "npz": ("npz", npz_file, {}),
    "safetensors": ("safetensors", safetensors_file, {}),
    "idx": ("idx", idx_file, {}),
    "zip of images": ("images", zip_of_images, {}),
    "tar of images": ("images", tar_of_images, {"size": [4, 4]}),
    "tar.gz of images": ("images", lambda: gzip.compress(tar_of_images(), mtime=0), {}),
    "text": ("text", text_file, {}),
    "text of lines": ("jsonl", jsonl_file, {"text_field": "b"}),
    "guessed": ("auto", csv_file, {}),
}

SPECIAL: Final = (b"\x00", b"\xff\xff\xff\xff", b"\n", b'"', b"1e999", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"../")
POSITION: Final = st.floats(0, 1, exclude_max=True)
CHANGES: Final = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), POSITION, st.integers(1, 255)),
        st.tuples(st.just("cut"), POSITION, st.integers(1, 64)),
        st.tuples(st.just("end"), POSITION, st.just(0)),
        st.tuples(st.just("repeat"), POSITION, st.integers(1, 200)),
        st.tuples(st.just("insert"), POSITION, st.integers(0, len(SPECIAL) - 1)),
        st.tuples(st.just("overwrite"), POSITION, st.integers(0, len(SPECIAL) - 1)),
    ),
    min_size=1,
    max_size=6,
)


def damage(content: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    """The content after some changes at relative positions."""
    found = bytearray(content)
    for what, where, how in changes:
        at = int(where * len(found))
        match what:
            case "flip" if found:
                found[at] ^= how
            case "cut":
                del found[at : at + how]
            case "end":
                del found[at:]
            case "repeat":
                found[at:at] = found[at : at + how]
            case "insert":
                found[at:at] = SPECIAL[how]
            case "overwrite":
                found[at : at + len(SPECIAL[how])] = SPECIAL[how]
    return bytes(found)


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Raises TimeoutError inside the block after so many seconds."""

    def ring(_signum: int, _frame: object) -> None:
        raise TimeoutError(f"a parser took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_damaged(content: bytes, form: str, options: dict[str, Any]) -> None:
    """Prepare it; a refusal must have reasons that a person can read."""
    with TemporaryDirectory() as home, alarm(ALARM_SECONDS):
        path = Path(home, "input")
        path.write_bytes(content)
        try:
            manifest = prepare_here(path, Path(home, "out"), format=form, options=options)
        except Refused as error:
            refused = error
        else:
            rows = {tensor.shape[0] for name, tensor in manifest.tensors.items() if name != "documents"}
            assert rows == {manifest.examples}
            return
    assert 1 <= len(refused.errors) <= MOST_ERRORS
    for problem in refused.errors:
        assert problem.code
        assert 0 < len(problem.detail) <= 300
        assert problem.detail.isprintable()


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_file_is_accepted(name: str, tmp_path: Path) -> None:
    """Otherwise the damaged ones would all be refused for one and the same reason."""
    form, make, options = FILES[name]
    (tmp_path / "input").write_bytes(make())
    if name == "text of lines":
        options = {"text_field": "text"}
        (tmp_path / "input").write_bytes(b'{"text": "a"}\n{"text": "b"}')
    assert prepare_here(tmp_path / "input", tmp_path / "out", format=form, options=options).examples >= 1


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(name: str, changes: list[tuple[str, float, int]]) -> None:
    form, make, options = FILES[name]
    read_damaged(damage(make(), changes), form, options)


@pytest.mark.parametrize("form", ["csv", "jsonl", "text", "auto"])
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.one_of(st.binary(max_size=400), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes(form: str, content: bytes) -> None:
    read_damaged(content, form, {})


FOUND: Final = {
    "images": (zip_of_images().replace(b"a/0.png", b"\0/0.png"), "unsafe_name"),
    "npy": (npy_file().replace(b"(40, 3), ", b"(1e999,),"), "unreadable"),
}
"""Format -> a damaged file that ended without a reason, and the code of its refusal."""


@pytest.mark.parametrize("form", FOUND)
def test_files_that_ended_without_a_reason_are_refused(form: str, tmp_path: Path) -> None:
    content, code = FOUND[form]
    (tmp_path / "input").write_bytes(content)
    assert refusal_of(tmp_path / "input", tmp_path / "out", format=form).code == code


def test_a_number_after_a_control_character_is_previewed(tmp_path: Path) -> None:
    """What counts as a space around a number differs between Arrow and Python."""
    (tmp_path / "input").write_bytes(b"\x1c0\n1\n")
    manifest = prepare_here(tmp_path / "input", tmp_path / "out", format="csv")
    assert (manifest.columns[0].kind, [row["column_1"] for row in manifest.preview]) == ("number", [0, 1])
