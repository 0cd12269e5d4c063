"""What a file is: by its content, whatever it is called; and what is said about those that are not read."""

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.prepare import prepare_spec
from worker.prepare.report import MOST_ERRORS, Refused, Report, escape_text
from worker.prepare.sniff import guess_format, sniff_delimiter
from worker.prepare.source import InputFile


def report_to(frames: list[tuple[str, dict[str, object]]] | None = None) -> Report:
    kept = [] if frames is None else frames
    return Report(lambda kind, fields: kept.append((kind, fields)))


def guess(folder: Path, content: bytes, filename: str | None = None) -> str:
    path = folder / "content"
    path.write_bytes(content)
    with path.open("rb") as file:
        return guess_format(InputFile(file.fileno()), prepare_spec(filename=filename), report_to())


def refusal(folder: Path, content: bytes, filename: str | None = None) -> str:
    with pytest.raises(Refused) as caught:
        guess(folder, content, filename)
    return caught.value.errors[0].detail


def zip_of(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return made.getvalue()


def tar_of(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def npy(array: np.ndarray) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


IDX = b"\0\0\x08\x01\0\0\0\x02ab"


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"a,b\n1,2\n3,4\n", None, "csv"),
        (b"a;b\n1,5;2,5\n3,5;4,5\n", None, "csv"),
        (b"a\tb\n1\t2\n3\t4\n", None, "tsv"),
        (b'a,b\n"1,5",2\n"x\ny",4\n', None, "csv"),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", None, "csv"),
        ("a,b\n1,é\n".encode("latin-1"), None, "csv"),
        ("a,b\n1,2\n".encode("utf-16"), None, "csv"),
        (b"a\n1\n2\n", "one_column.csv", "csv"),
        (b"a\n1\n2\n", None, "text"),
        (b'{"a": 1}\n{"a": 2}\n', "wrong.csv", "jsonl"),
        (b"To be, or not to be, that is the question:\nWhether 'tis nobler\nin the mind, to suffer\n", None, "text"),
        (b"One line, and another\n" * 3 + b"without\n" * 3, "play.txt", "text"),
        (npy(np.zeros(3)), "wrong.csv", "npy"),
        (zip_of("x.npy", "y.npy"), None, "npz"),
        (zip_of("cat/1.PNG", "dog/2.jpeg", "labels.csv"), None, "images"),
        (zip_of("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"), None, "idx"),
        (b"PAR1" + bytes(20) + b"PAR1", None, "parquet"),
        (IDX, None, "idx"),
        (gzip.compress(IDX, mtime=0), None, "idx"),
        (tar_of("labels", IDX), None, "idx"),
        (tar_of("labels.gz", gzip.compress(IDX, mtime=0)), None, "idx"),
        (gzip.compress(tar_of("cat/1.png", b"png"), mtime=0), None, "images"),
        (b"\x02\0\0\0\0\0\0\0{}", None, "safetensors"),
        (b"a,b\n1,\0\n", "a.csv", "csv"),
    ],
)
def test_the_format_is_that_of_the_content(tmp_path: Path, content: bytes, name: str | None, expected: str) -> None:
    assert guess(tmp_path, content, name) == expected


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", None, "empty"),
        (b"\x89PNG\r\n\x1a\n", "one.png", "one image is no dataset"),
        (pickle.dumps([1]), "data.pkl", "it can run code"),
        (b"\x89HDF\r\n\x1a\n", None, "HDF5 is not read"),
        (b"PAR1" + bytes(20), None, "ends too early"),
        (zip_of("[Content_Types].xml", "xl/workbook.xml"), "a.xlsx", "save the sheet as CSV"),
        (zip_of("data.csv"), None, "neither images nor arrays but data.csv"),
        (zip_of(), None, "but nothing"),
        (b"PK\x03\x04" + bytes(50), None, "zip file is broken"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "a.csv.gz", "unpack the file first"),
        (b"\x1f\x8b" + bytes(20), None, "gzip file is broken"),
        (b"[1, 2]", "a.json", "one object per line"),
        (bytes(100), None, "none of the formats"),
        (b"a,b\n1,\0\n", None, "none of the formats"),
        (bytes(range(1, 32)) * 10, None, "none of the formats"),
    ],
)
def test_what_is_not_read_is_named_with_a_way_out(
    tmp_path: Path, content: bytes, name: str | None, message: str
) -> None:
    assert message in refusal(tmp_path, content, name)


@pytest.mark.parametrize(
    ("sample", "delimiter"),
    [
        ("a,b,c\n1,2,3\n", ","),
        ("a;b\n1,5;2\n2,5;3\n", ";"),
        ("a|b\n1|2\n", "|"),
        ("a\tb\n1\t2\n", "\t"),
        ("a,b\r\n1,2\r\n", ","),
        ('x,y\n"a,b,c",1\n"d\n\n,e",2\n', ","),
        ("plain\nlines\n", None),
        ("a,b", None),
        ("a,b\n" * 20 + "a,b,c\n", ","),
    ],
)
def test_delimiters(sample: str, delimiter: str | None) -> None:
    assert sniff_delimiter(sample) == delimiter


def test_progress_is_sent_at_most_five_times_a_second() -> None:
    """A clock of 1/64 s a reading, exact in binary: 640 reports in 10 s, at least 0.2 s apart, the first at once."""
    frames: list[tuple[str, dict[str, object]]] = []
    ticks = iter(range(10_000))
    report = Report(lambda kind, fields: frames.append((kind, fields)), lambda: next(ticks) / 64)
    for row in range(640):
        report.progress(row, 640)
    steps = [fields["step"] for _, fields in frames]
    assert steps == list(range(0, 640, 13))  # 13/64 s is the first that is not below 0.2 s
    assert frames[1][1]["fraction"] == 0.75 * (13 / 640)  # the rest is for writing


def test_errors_end_at_a_hundred_and_warnings_come_once() -> None:
    report = report_to()
    report.warn("twice")
    report.warn("twice")
    assert report.warnings == ("twice",)
    for row in range(1, MOST_ERRORS):
        report.error("ragged", "too long", row=row)
    with pytest.raises(Refused) as caught:
        report.error("ragged", "too long", row=MOST_ERRORS)
    assert [problem.row for problem in caught.value.errors] == list(range(1, 101))


def test_text_is_cut_and_escaped() -> None:
    assert escape_text("a\x00\x1b[0m\u202e\U000e0001é\n") == "a\\x00\\x1b[0m\\u202e\\U000e0001é\\x0a"
    assert len(escape_text("\n" * 400)) == 300
    assert escape_text("x" * 300) == "x" * 300
    assert escape_text("x" * 301) == "x" * 299 + "…"


def test_every_reader_has_a_position_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    with path.open("rb") as file:
        source = InputFile(file.fileno(), "a")
        one, other = source.open(), source.open()
        assert (one.read(3), other.read(2), one.read(2)) == (b"\0\1\2", b"\0\1", b"\3\4")
        assert (one.seek(-2, 2), one.read(), one.read(5)) == (98, bytes([98, 99]), b"")
        assert bytes(source.map()[10:12]) == bytes([10, 11])
        with pytest.raises(OSError, match="fileno"):
            one.fileno()
