"""A file, or a folder, is prepared on this machine alone: the same confined process, the same bits, no database."""

import io
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from basin import local_data
from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest
from tests.support.npz_uploads import npz_bytes
from tests.support.prepare import prepare_spec
from worker.datasets.folder_tar import UnusableFolder, write_folder_tar
from worker.datasets.local import FileRefused, PrepareFailed, prepare_local
from worker.prepare.launch import PrepareLauncher

SPEC = prepare_spec()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_file_is_laid_out_as_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz_bytes())
    seen: list[Any] = []
    manifest = prepare_local(tmp_path / "a.npz", SPEC, made(tmp_path / "out"), seen.append)
    content = (tmp_path / "out" / MANIFEST_FILE).read_bytes()
    assert DatasetManifest.model_validate_json(content) == manifest
    assert np.array_equal(load_file(tmp_path / "out" / "targets.safetensors")["targets"], np.arange(1000) % 3)
    assert seen
    assert 0 <= seen[0]["fraction"] <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "out"]  # nothing is left beside it


def test_it_gives_the_same_version_each_time(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz_bytes())
    versions = {prepare_local(tmp_path / "a.npz", SPEC, made(tmp_path / name)).version() for name in ("one", "two")}
    assert len(versions) == 1


def test_a_bad_file_is_refused_with_its_problems(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(FileRefused) as found:
        prepare_local(tmp_path / "a.npz", SPEC, made(tmp_path / "out"))
    assert set(found.value.problems[0]) == {"file", "row", "column", "code", "detail"}
    assert list((tmp_path / "out").iterdir()) == []


def test_a_process_that_hangs_is_too_large_for_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.npz").write_bytes(npz_bytes())
    hanging = partial(PrepareLauncher, module="tests.support.hanging_prepare")
    monkeypatch.setattr("worker.datasets.local.PrepareLauncher", hanging)
    with pytest.raises(FileRefused) as found:
        prepare_local(tmp_path / "a.npz", SPEC, made(tmp_path / "out"), most_seconds=2.0)
    assert found.value.problems[0]["code"] == "too_large"


def test_a_process_that_does_not_begin_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where one of its libraries is not installed."""
    (tmp_path / "a.npz").write_bytes(npz_bytes())
    monkeypatch.setattr("worker.datasets.local.PrepareLauncher", partial(PrepareLauncher, module="tests.no_module"))
    with pytest.raises(PrepareFailed, match="No module named"):
        prepare_local(tmp_path / "a.npz", SPEC, made(tmp_path / "out"))


def photos(folder: Path) -> Path:
    for label, grey in (("cat", 10), ("dog", 200)):
        for number in range(3):
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (grey, number, 0)).save(path)
    (folder / ".hidden").write_bytes(b"x")
    return folder


def test_a_folder_is_a_tar_that_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    tars = []
    for name in ("one", "two"):
        file = io.BytesIO()
        write_folder_tar(photos(tmp_path / name), file)
        tars.append(file.getvalue())
    assert tars[0] == tars[1]
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as archive:
        assert archive.getnames() == [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3)]


def test_client_and_worker_make_the_same_tar(tmp_path: Path) -> None:
    """Or a folder that was uploaded and the same one by reference or in place would have two digests."""
    folder = photos(tmp_path / "photos")
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_folder_tar(folder, ours)
    local_data.write_folder_tar(folder, theirs)
    assert ours.getvalue() == theirs.getvalue()


def test_a_folder_with_a_link_or_without_files_is_refused(tmp_path: Path) -> None:
    (made(tmp_path / "links") / "a.png").symlink_to("/etc/passwd")
    for name, message in (("links", "a.png is a symbolic link"), ("empty", "there are no files in the folder")):
        (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises(UnusableFolder, match=message):
            write_folder_tar(tmp_path / name, io.BytesIO())
        with pytest.raises(FileRefused, match=message):
            prepare_local(tmp_path / name, SPEC, made(tmp_path / f"out-{name}"))


def test_it_needs_no_database_and_no_torch() -> None:
    """`basin run` uses it where nothing of the service is set up."""
    code = "import sys, worker.datasets.local; print({'torch', 'sqlalchemy', 'celery'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
