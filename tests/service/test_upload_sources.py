"""The bytes of an upload on their way into one file of the worker: pieces of the store, or a path of the operator."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.jobs.datasets.rows import DatasetRow, UploadPiece
from core.store.base import StoreTransient
from core.store.local import LocalStore
from worker.datasets.source import SourceGone, SourceRefused, SourceWriter, copy_reference

CONTENT = bytes(range(256)) * 100
ROW = DatasetRow(
    id="ds_1",
    project="p",
    owner="o",
    name="n",
    status="queued",
    format="auto",
    filename=None,
    options={},
    bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    received=len(CONTENT),
    version=None,
    source=None,
    job_id=None,
    expires_at=None,
)


def nothing() -> None:
    """Nobody interrupts."""


def read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def pieces(store: LocalStore) -> list[UploadPiece]:
    found = []
    for offset in range(0, len(CONTENT), 7000):
        digest = store.put_bytes(CONTENT[offset : offset + 7000], f"uploads/ds_1/{offset}")
        found.append(UploadPiece(offset, digest.bytes, f"uploads/ds_1/{offset}", digest.sha256))
    return found


def writer(store: LocalStore, folder: Path, retry: Callable[..., Any] = lambda call: call()) -> SourceWriter:
    return SourceWriter(store, retry, nothing, folder)


def test_pieces_become_one_file_without_a_name_that_can_only_be_read(
    store: LocalStore, pieces: list[UploadPiece], tmp_path: Path
) -> None:
    fd = writer(store, tmp_path).write(ROW, pieces)
    assert not (tmp_path / "source").exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    assert read_all(fd) == CONTENT


def test_a_piece_that_breaks_off_is_read_again(
    store: LocalStore, pieces: list[UploadPiece], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written of it is written over, and the digest of the whole begins before it again."""
    opened, open_range = list[str](), store.open_range

    def break_off(key: str, *_: Any) -> Any:
        opened.append(key)
        yield b"half"
        if len(opened) == 3:
            raise StoreTransient("away")
        yield from open_range(key)

    monkeypatch.setattr(store, "open_range", lambda key: break_off(key) if len(opened) == 2 else whole(key))

    def whole(key: str) -> Any:
        opened.append(key)
        return open_range(key)

    def retry(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except StoreTransient:
            return call()

    assert read_all(writer(store, tmp_path, retry).write(ROW, pieces)) == CONTENT
    assert len(opened) == len(pieces) + 1


def test_a_part_sent_by_link_has_no_digest_of_its_own(
    store: LocalStore, pieces: list[UploadPiece], tmp_path: Path
) -> None:
    bare = [replace(piece, sha256=None) for piece in pieces]
    assert read_all(writer(store, tmp_path).write(ROW, bare)) == CONTENT
    with pytest.raises(SourceGone, match="damaged"):
        writer(store, tmp_path).write(ROW, [*bare[:-1], replace(bare[-1], key=bare[0].key)])


def test_what_is_not_as_announced(store: LocalStore, pieces: list[UploadPiece], tmp_path: Path) -> None:
    with pytest.raises(SourceRefused) as found:
        writer(store, tmp_path).write(replace(ROW, sha256="ab" * 32), pieces)
    assert found.value.problem["code"] == "wrong_digest"
    with pytest.raises(SourceGone, match="are gone"):
        writer(store, tmp_path).write(ROW, pieces[:-1])
    store.delete(pieces[2].key)
    with pytest.raises(SourceGone, match="from 14000 on cannot be read any more"):
        writer(store, tmp_path).write(ROW, pieces)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def referring(path: str) -> DatasetRow:
    return replace(ROW, source={"kind": "folder", "path": path})


def test_a_file_of_the_operator_is_copied(tmp_path: Path) -> None:
    """A copy: the file may change while it is read."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "a.bin").write_bytes(CONTENT)
    fd = copy_reference(referring("a.bin"), [tmp_path / "lake"], tmp_path, nothing)
    (tmp_path / "lake" / "a.bin").write_bytes(b"changed")
    assert read_all(fd) == CONTENT


def test_a_folder_of_the_operator_is_a_tar(tmp_path: Path) -> None:
    (tmp_path / "lake" / "cars").mkdir(parents=True)
    (tmp_path / "lake" / "cars" / "a.bin").write_bytes(CONTENT)
    fd = copy_reference(replace(referring("cars"), sha256=None), [tmp_path / "lake"], tmp_path, nothing)
    assert CONTENT in read_all(fd)


@pytest.mark.parametrize("path", ["../secret", "link", "missing", "/etc/passwd"])
def test_nothing_leads_out_of_the_folders_of_the_operator(tmp_path: Path, path: str) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "secret").write_bytes(CONTENT)
    (tmp_path / "lake" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceGone):
        copy_reference(referring(path), [tmp_path / "lake"], tmp_path, nothing)
    with pytest.raises(SourceGone):
        copy_reference(referring("a"), [], tmp_path, nothing)


def write_over(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize("change", [b"", b"longer"])
def test_a_file_that_changes_while_it_is_read_is_not_used(tmp_path: Path, change: bytes) -> None:
    path = tmp_path / "lake" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    with pytest.raises(SourceGone, match="was changed while"):
        copy_reference(
            replace(referring("a.bin"), sha256=None), [tmp_path / "lake"], tmp_path, lambda: write_over(path, change)
        )


@pytest.mark.parametrize("change", [b"", CONTENT + CONTENT])
def test_a_folder_that_changes_while_it_is_read_is_not_used(
    tmp_path: Path, change: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is not blamed where a file has become shorter."""
    path = tmp_path / "lake" / "cars" / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    look, looked = os.fstat, []

    def look_then_change(fd: int) -> os.stat_result:
        found = look(fd)
        if found.st_ino == path.stat().st_ino and not looked:
            looked.append(fd)
            path.write_bytes(change)
        return found

    monkeypatch.setattr(os, "fstat", look_then_change)
    with pytest.raises(SourceGone, match="was changed while"):
        copy_reference(replace(referring("cars"), sha256=None), [tmp_path / "lake"], tmp_path, nothing)
    assert looked
