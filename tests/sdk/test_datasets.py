"""Uploads over a real socket: pieces, broken connections, digests, folders, and paths in job files."""

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from basin.client import Client
from basin.data_files import find_local_source
from basin.dataset_output import describe_classes
from basin.datasets import PIECE, dataset_name
from basin.errors import BadFile, Problem
from basin.local_data import open_local_data
from tests.sdk.conftest import JOB_ID, job
from tests.sdk.stub import Answer, Asked, Stub

READY = {"id": "ds_1", "status": "ready", "name": "train", "kind": "table", "examples": 2}
CONTENT = "/v1/datasets/ds_1/content"


class Receiver:
    """A service that stores what it gets, and breaks as the test says: 'lose' stores a piece without an answer."""

    def __init__(self, stub: Stub, accidents: tuple[str, ...] = (), final: dict[str, Any] | None = None) -> None:
        self.got, self.accidents = b"", list(accidents)
        created = READY | {"status": "uploading", "upload": {"offset": 0}}
        stub.on("POST", "/v1/datasets", Answer(201, created))
        stub.on("HEAD", CONTENT, lambda _: Answer(200, b"", {"Upload-Offset": str(len(self.got))}))
        stub.on("PATCH", CONTENT, self._patch)
        stub.on("GET", "/v1/datasets/ds_1", Answer(200, READY | (final or {})))

    def _patch(self, asked: Asked) -> Answer:
        accident = self.accidents.pop(0) if self.accidents else ""
        if accident == "drop":
            return Answer(cut=-1)
        if accident == "busy":
            return Answer(503, {"title": "Unavailable", "code": "unavailable"}, {"Retry-After": "0"})
        if int(asked.headers["upload-offset"]) != len(self.got):
            return Answer(409, {"title": "Conflict", "code": "offset"}, {"Upload-Offset": str(len(self.got))})
        self.got += asked.body
        return Answer(cut=-1) if accident == "lose" else Answer(204, b"", {"Upload-Offset": str(len(self.got))})


@pytest.mark.parametrize("accidents", [(), ("drop",), ("lose",), ("busy", "busy"), ("drop", "lose", "busy")])
def test_an_upload_arrives_whole_whatever_breaks(
    stub: Stub, client: Client, tmp_path: Path, accidents: tuple[str, ...]
) -> None:
    """A piece that was stored without an answer is not sent twice; one that was lost is sent again."""
    content = os.urandom(2 * PIECE + 5)
    (tmp_path / "train.csv").write_bytes(content)
    receiver = Receiver(stub, accidents)
    seen: list[tuple[int, int]] = []
    found = client.data.add(tmp_path / "train.csv", on_upload=lambda *done: seen.append(done))
    assert (found.status, receiver.got == content) == ("ready", True)
    assert seen[-1] == (len(content), len(content))
    announced = stub.requests("POST", "/v1/datasets")[0].body
    assert announced["bytes"] == len(content)
    assert announced["sha256"] == hashlib.sha256(content).hexdigest()
    assert (announced["name"], announced["filename"]) == ("train", "train.csv")


def test_bytes_that_the_project_has_are_not_sent(stub: Stub, client: Client, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    stub.on("POST", "/v1/datasets", Answer(200, READY))
    stub.on("GET", "/v1/datasets/ds_1", Answer(200, READY))
    assert client.data.add(tmp_path / "train.csv").status == "ready"
    assert stub.requests("PATCH", CONTENT) == []


def test_an_upload_whose_end_was_not_noted_is_ended(stub: Stub, client: Client, tmp_path: Path) -> None:
    """The service stopped after the last byte: an empty piece at its end lets it go on."""
    content = b"a,b\n1,2\n"
    (tmp_path / "train.csv").write_bytes(content)
    receiver = Receiver(stub)
    waiting = READY | {"status": "uploading"}
    ended = lambda: len(stub.requests("PATCH", CONTENT)) > 1  # noqa: E731
    stub.on("GET", "/v1/datasets/ds_1", lambda _: Answer(200, READY if ended() else waiting))
    assert client.data.add(tmp_path / "train.csv").status == "ready"
    assert receiver.got == content
    last = stub.requests("PATCH", CONTENT)[-1]
    assert (last.body, last.headers["upload-offset"]) == (b"", str(len(content)))


def test_what_the_service_needs_is_always_sent(stub: Stub, client: Client, tmp_path: Path) -> None:
    """A name also for arrays, and names of at most 200 characters; a file without a byte is not announced."""
    Receiver(stub)
    long = tmp_path / ("x" * 230 + ".csv")
    long.write_text("a\n1\n")
    client.data.add(long)
    client.data.add(np.eye(2))
    first, second = [asked.body for asked in stub.requests("POST", "/v1/datasets")]
    assert (first["name"], first["filename"]) == ("x" * 200, "x" * 196 + ".csv")
    assert (second["name"], second["format"], "filename" in second) == ("data", "npy", False)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(BadFile, match=r"empty\.csv: there is no byte in it"):
        client.data.add(tmp_path / "empty.csv")
    assert len(stub.requests("POST", "/v1/datasets")) == 2


def test_a_name_is_its_newest_ready_dataset(stub: Stub, client: Client) -> None:
    """Lists answer null for columns and classes. Where none is ready, the newest is shown."""
    listed = READY | {"columns": None, "classes": None, "error": None}
    there = {"ready": [listed]}

    def answer(asked: Asked) -> Answer:
        status = asked.query.get("status", "any")
        return Answer(200, {"object": "list", "data": there.get(status, []), "has_more": False})

    stub.on("GET", "/v1/datasets", answer)
    stub.on("GET", "/v1/datasets/ds_1", Answer(200, READY | {"classes": {"cat": 2}}))
    assert client.data.find("train").classes == {"cat": 2}
    assert [(one.columns, one.classes) for one in client.data.list(status="ready")] == [((), {})]
    there = {"any": [listed]}
    assert client.data.find("train").id == "ds_1"
    there = {}
    with pytest.raises(Problem, match="there is no dataset 'nobody'"):
        client.data.find("nobody")


def test_many_classes_are_not_all_named() -> None:
    few = {f"c{number}": number for number in range(12)}
    many = {f"c{number}": 1 for number in range(100)}  # as many as a service names
    assert describe_classes({"cat": 1200, "dog": 3}) == "cat (1,200), dog (3)"
    assert describe_classes(few).endswith("c9 (9), and 2 more")
    assert describe_classes(many).endswith("c9 (1), and at least 90 more")


def test_a_refused_piece_is_a_problem(stub: Stub, client: Client, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    Receiver(stub)
    stub.on("PATCH", CONTENT, Answer(413, {"title": "Too large", "code": "quota", "detail": "Too much."}))
    with pytest.raises(Problem, match=r"Too much\."):
        client.data.add(tmp_path / "train.csv")


def test_a_folder_is_the_same_tar_on_every_machine(tmp_path: Path) -> None:
    """Times, modes, owners and the order of creation have no effect; hidden files are left out."""
    digests = []
    for number, names in enumerate((["b/2.png", "a/1.png"], ["a/1.png", "b/2.png"])):
        for name in names:
            path = tmp_path / str(number) / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
            os.utime(path, (number * 1000, number * 1000))
            path.chmod(0o600 if number else 0o644)
        (tmp_path / str(number) / "photos" / ".DS_Store").write_text(str(number))
        with open_local_data(tmp_path / str(number) / "photos") as data:
            digests.append(data.sha256)
            with tarfile.open(fileobj=io.BytesIO(data.file.read())) as archive:
                members = [(each.name, each.mtime, each.uid) for each in archive]
    assert digests[0] == digests[1]
    assert members == [("a/1.png", 0, 0), ("b/2.png", 0, 0)]


def test_a_link_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(BadFile, match="passwd: a symbolic link"), open_local_data(tmp_path / "photos"):
        pass


def test_arrays_and_tables_of_python() -> None:
    """Equal arrays have equal bytes, and numpy reads them back."""
    arrays = {"inputs": np.arange(6.0).reshape(3, 2), "targets": np.array([0, 1, 0])}
    with open_local_data(arrays) as first, open_local_data(dict(arrays)) as second:
        assert (first.sha256, first.format) == (second.sha256, "npz")
        back = np.load(io.BytesIO(first.file.read()))
        assert back["inputs"].tolist() == arrays["inputs"].tolist()
        assert back["targets"].tolist() == [0, 1, 0]
    with open_local_data(np.eye(2)) as one:
        assert (one.format, np.load(io.BytesIO(one.file.read())).tolist()) == ("npy", [[1, 0], [0, 1]])
    with pytest.raises(BadFile, match="cannot upload int"), open_local_data(3):
        pass


@pytest.mark.parametrize(
    ("data", "fields", "options"),
    [
        ("./d.csv", {}, {}),
        ({"path": "./d.csv", "target": "species"}, {"target": "species"}, {}),
        ({"name": "dataset", "dataset": "./d.csv", "test": 0.3}, {"test": 0.3}, {}),
        ({"path": "./d.csv", "options": {"delimiter": ";"}, "format": "csv"}, {}, {"delimiter": ";"}),
    ],
)
def test_a_job_file_names_a_path(tmp_path: Path, data: Any, fields: dict[str, Any], options: dict[str, Any]) -> None:
    """The path begins at the folder of the job file."""
    (tmp_path / "d.csv").touch()
    source = find_local_source({"data": data}, str(tmp_path / "job.yaml"))
    assert source is not None
    assert (source.path, source.filename, dict(source.options)) == (tmp_path / "d.csv", "d.csv", options)
    assert source.as_data("ds_1") == {"name": "dataset", "dataset": "ds_1", **fields}


def test_the_folder_of_the_job_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "photos")
    here, above = (
        find_local_source({"data": data}, name) for data, name in ((".", "job.yaml"), ("..", "below/a.yaml"))
    )
    assert here is not None
    assert above is not None
    assert (here.filename, above.filename) == ("photos", "photos")


@pytest.mark.parametrize("data", [{"name": "digits"}, {"name": "dataset", "dataset": "penguins"}, None, 3])
def test_other_data_is_not_a_path(data: Any) -> None:
    assert find_local_source({"data": data}, "job.yaml") is None


def test_a_path_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"job\.yaml: data: there is no file or folder .*train\.csv"):
        find_local_source({"data": "./train.csv"}, str(tmp_path / "job.yaml"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "there is no file or folder ''; a built-in dataset is {name: digits}"),
        ("iris", r"there is no file or folder .*iris; a built-in dataset is {name: iris}"),
        ("./iris", "there is no file or folder .*iris$"),
        ("/dev/null", "/dev/null is neither a file nor a folder"),
    ],
)
def test_what_is_no_path_of_a_file(tmp_path: Path, data: str, said: str) -> None:
    """An empty path does not stand for the folder of the job file, and a device is not read without an end."""
    with pytest.raises(BadFile, match=said):
        find_local_source({"data": data}, str(tmp_path / "job.yaml"))


def test_a_device_is_not_uploaded() -> None:
    with pytest.raises(BadFile, match="neither a file nor a folder"), open_local_data("/dev/zero"):
        pass


@pytest.mark.parametrize(
    ("filename", "name"),
    [("train.csv", "train"), ("a.tar.gz", "a"), ("photos", "photos"), ("v1.2.csv", "v1.2"), ("", None)],
)
def test_the_name_of_a_dataset_is_that_of_its_file(filename: str, name: str | None) -> None:
    assert dataset_name(filename) == name


def test_basin_submit_uploads_and_prints_what_was_understood(stub: Stub, basin: Any, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,species\n1,x\n2,y\n")
    (tmp_path / "job.yaml").write_text("data: {path: ./train.csv, target: species}\nepochs: 3\n")
    column = {"name": "species", "kind": "category", "missing": 1, "classes": 2}
    Receiver(stub, final={"columns": [column], "warnings": ["a is short"]})
    stub.on("POST", "/v1/jobs", Answer(201, job("queued")))
    done = basin("submit", str(tmp_path / "job.yaml"))
    assert done.code == 0
    sent = stub.requests("POST", "/v1/jobs")[0].body
    assert sent == {"data": {"name": "dataset", "dataset": "ds_1", "target": "species"}, "epochs": 3}
    assert JOB_ID in done.out
    assert "train: 2 examples (table), ds_1" in done.err
    assert "species: category, 1 missing  2 values" in done.err
    assert "warning: a is short" in done.err


def test_basin_submit_of_refused_data_says_every_reason(stub: Stub, basin: Any, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,a\n1,2\n")
    (tmp_path / "job.yaml").write_text("data: ./train.csv\n")
    error = {"file": "train.csv", "row": 1, "column": "a", "code": "duplicate_column", "detail": "a occurs twice"}
    Receiver(stub, final={"status": "refused", "errors": [error]})
    done = basin("submit", str(tmp_path / "job.yaml"))
    assert done.code == 1
    assert "train.csv, row 1, column a: a occurs twice" in done.err
    assert stub.requests("POST", "/v1/jobs") == []


def test_basin_data_commands(stub: Stub, basin: Any) -> None:
    stub.on("GET", "/v1/datasets", Answer(200, {"object": "list", "data": [READY], "has_more": False}))
    stub.on("GET", "/v1/datasets/ds_1", Answer(200, READY))
    stub.on("GET", "/v1/datasets/ds_1/rows", Answer(200, {"data": [{"a": 1.5, "species": "x"}]}))
    stub.on("DELETE", "/v1/datasets/ds_1", Answer(204))
    assert "train" in basin("data", "list").out
    assert "table" in basin("data", "show", "train").out
    assert "species" in basin("data", "rows", "ds_1").out
    assert "train is deleted." in basin("data", "delete", "train").out
