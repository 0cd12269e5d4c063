"""Archives that lie, lead out of themselves, or grow without end."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.prepare.test_sniff import report_to
from worker.prepare.archive import inflate_pieces, iterate_members
from worker.prepare.report import Refused
from worker.prepare.source import InputFile


def members(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        return {each.name: each.read() for each in iterate_members(InputFile(file.fileno()), report_to())}


def code_of(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        members(path)
    return caught.value.errors[0].code


def write_zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def write_tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is a parameter
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def with_type(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def test_files_in_their_order_without_litter(tmp_path: Path) -> None:
    made = write_zip(
        tmp_path / "a.zip", ("b/2", b"2"), ("b/", b""), ("a/1", b"1"), ("__MACOSX/._1", b""), (".DS_Store", b"")
    )
    assert list(members(made).items()) == [("b/2", b"2"), ("a/1", b"1")]
    for mode, name in (("w", "a.tar"), ("w:gz", "a.tar.gz")):
        entries = [(tarfile.TarInfo("b/2"), b"2" * 70_000), (tarfile.TarInfo("a/1"), b"1")]
        assert members(write_tar(tmp_path / name, *entries, mode=mode)) == {"b/2": b"2" * 70_000, "a/1": b"1"}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\\b", "C:x"])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    assert code_of(write_zip(tmp_path / "a.zip", (name, b"x"))) == "unsafe_name"
    assert code_of(write_tar(tmp_path / "a.tar", (tarfile.TarInfo(name), b"x"))) == "unsafe_name"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path: Path) -> None:
    assert code_of(write_zip(tmp_path / "a.zip", ("x", b"1"), ("x", b"2"))) == "name_twice"
    entries = [(tarfile.TarInfo("x"), b"1"), (tarfile.TarInfo("x"), b"2")]
    assert code_of(write_tar(tmp_path / "a.tar", *entries)) == "name_twice"


def test_links_and_devices(tmp_path: Path) -> None:
    assert code_of(write_zip(tmp_path / "a.zip", (with_mode("x", stat.S_IFLNK | 0o777), b"/etc"))) == "not_a_file"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        assert code_of(write_tar(tmp_path / "a.tar", (with_type("x", kind), b""))) == "not_a_file"


def read_until_refused(pieces: Iterator[bytes]) -> int:
    """How many bytes came before the refusal of a bomb."""
    made = 0
    try:
        for piece in pieces:
            assert len(piece) <= 64 << 10
            made += len(piece)
    except Refused as refused:
        assert refused.errors[0].code == "bomb"  # noqa: PT017 - the bytes before it are the result
        return made
    raise AssertionError("it was read to its end")


def test_a_bomb_is_stopped_early(tmp_path: Path) -> None:
    """Zeros shrink a thousandfold: 40 MB from 40 kB are refused at 200 times the size, or after a megabyte."""
    path = write_zip(tmp_path / "a.zip", ("x", bytes(40 << 20)))
    with path.open("rb") as file:
        (member,) = iterate_members(InputFile(file.fileno()), report_to())
        assert read_until_refused(member.pieces()) < 201 * path.stat().st_size
    (tmp_path / "b.gz").write_bytes(gzip.compress(bytes(40 << 20), mtime=0))
    with (tmp_path / "b.gz").open("rb") as file:
        assert read_until_refused(inflate_pieces(InputFile(file.fileno()), report_to())) < 15 << 20


def test_a_directory_that_lies_about_a_size(tmp_path: Path) -> None:
    """It says 10 bytes for 100,000: what is read stops there, and the check sum tells."""
    path = write_zip(tmp_path / "a.zip", ("x", bytes(100_000)))
    content = path.read_bytes()
    assert content.count(struct.pack("<I", 100_000)) == 2
    path.write_bytes(content.replace(struct.pack("<I", 100_000), struct.pack("<I", 10)))
    assert code_of(path) == "unreadable"


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-30], lambda content: content[:40] + b"\xff" * 20 + content[60:]]
)
def test_damaged_archives(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    text = bytes(range(256)) * 40
    paths = [
        write_zip(tmp_path / "a.zip", ("x", text)),
        write_tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("x"), text), mode="w:gz"),
    ]
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
        assert code_of(path) == "unreadable"


def test_a_tar_that_ends_in_the_middle(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", (tarfile.TarInfo("x"), bytes(10_000)))
    path.write_bytes(path.read_bytes()[:5_000])
    assert code_of(path) == "unreadable"
