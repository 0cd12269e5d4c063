"""A table, arrays and a folder of images by the command line and the client, from the file to the trained job."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from basin.client import Client
from basin.errors import Problem
from tests.e2e.verbs.conftest import LONG, House
from tests.support.service import ROOT

PENGUINS = ROOT / "examples" / "data" / "penguins.csv"
JOB = """
model: {name: mlp, hidden: [8]}
data: {path: ./penguins.csv, target: species}
optimizer: {name: sgd, lr: 0.1}
evaluate: {every: 1000st}
steps: 100
"""
UNDERSTOOD = """penguins: 344 examples (table), {id}
  species: category  3 values
  island: category  3 values
  bill_length_mm: number, 2 missing  32.1 to 59.6
  bill_depth_mm: number, 2 missing  13.1 to 21.5
  flipper_length_mm: number, 2 missing  172 to 231
  body_mass_g: number, 2 missing  2700 to 6300
  sex: category, 11 missing  2 values
  year: number  2007 to 2009
"""
DATASET = re.compile(r"ds_[0-9a-z]{26}")


@pytest.fixture
def folder(house: House) -> Path:
    """Where the commands run, with the table and a job on it."""
    folder = house.home.parent
    shutil.copy(PENGUINS, folder / "penguins.csv")
    (folder / "penguins.yaml").write_text(JOB)
    return folder


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with house.client() as client:
        yield client


def found_id(text: str) -> str:
    found = DATASET.search(text)
    assert found, text
    return found[0]


def test_a_path_in_a_job_file_is_uploaded_once(house: House, folder: Path) -> None:
    """The first submit sends the file, the second one finds it; the weights have the scale of the columns."""
    added = house.basin("data", "add", "penguins.csv")
    dataset = found_id(added)
    assert re.search(r"bill_length_mm +number +2 +32.1 to 59.6", added)
    first = house.run("submit", "penguins.yaml", "--follow")
    assert (first.returncode, first.stderr) == (0, UNDERSTOOD.format(id=dataset)), first.stdout
    job_id = first.stdout.split()[0]
    assert f"{job_id}  succeeded" in first.stdout
    house.basin("download", job_id, "--to", "penguins.safetensors")
    assert any(name.startswith("standardize.") for name in load_file(folder / "penguins.safetensors"))
    second = house.run("submit", "penguins.yaml", "--dry-run")
    assert (second.returncode, found_id(second.stderr)) == (0, dataset)
    listed = json.loads(house.basin("data", "list", "--name", "penguins", "-o", "json"))
    assert [(one["id"], one["status"], one["used_by"]) for one in listed["data"]] == [(dataset, "ready", 1)]


@pytest.mark.slow
def test_list_show_rows(house: House, folder: Path) -> None:
    dataset = found_id(house.basin("data", "add", "penguins.csv", "--name", "shown"))
    assert re.search(rf"{dataset} +shown +ready +table +344", house.basin("data", "list", "--status", "ready"))
    by_name, by_id = house.basin("data", "show", "shown"), house.basin("data", "show", dataset)
    assert by_name == by_id
    assert re.search(r"species +category +0 +3 values", by_name)
    rows = house.basin("data", "rows", "shown", "-n", "2").splitlines()
    assert rows[0].split()[:3] == ["species", "island", "bill_length_mm"]
    assert [row.split()[:3] for row in rows[1:]] == [["Adelie", "Torgersen", "39.1"], ["Adelie", "Torgersen", "39.5"]]
    assert "there is no dataset 'nobody'" in house.refused("data", "show", "nobody")
    changed = ("--name", "changed", "--option", "columns.year.kind=category")
    other = found_id(house.basin("data", "add", str(folder / "penguins.csv"), *changed))
    assert other != dataset
    assert re.search(r"year +category +0 +3 values", house.basin("data", "show", other))


@pytest.mark.slow
def test_a_refused_file_says_row_and_column(house: House, folder: Path) -> None:
    (folder / "ragged.csv").write_text("a,b\n1,2\n3\n4\n")
    (folder / "twice.csv").write_text("a,a\n1,2\n")
    said = house.refused("data", "add", "ragged.csv")
    assert "row 3: the row has 1 cell, the header has 2" in said
    assert "row 4: the row has 1 cell, the header has 2" in said
    (folder / "twice.yaml").write_text(JOB.replace("penguins.csv", "twice.csv"))
    said = house.refused("submit", "twice.yaml")
    assert said == "error: twice cannot be used:\n  row 1, column a: two columns are named 'a'\n"
    assert re.search(r"twice +refused", house.basin("data", "list", "--name", "twice"))
    assert "The dataset is not ready: it is refused." in house.refused("data", "rows", "twice")
    (folder / "empty.csv").touch()
    assert "empty.csv: there is no byte in it" in house.refused("data", "add", "empty.csv")


@pytest.mark.slow
def test_a_dataset_stays_while_a_job_needs_it(house: House, folder: Path) -> None:
    (folder / "needed.csv").write_text(PENGUINS.read_text().replace("Adelie", "adelie"))
    (folder / "needed.yaml").write_text(JOB.replace("penguins.csv", "needed.csv"))
    job_id = house.basin("submit", "needed.yaml", *LONG).split()[0]
    house.in_attempt(1, job_id)
    said = house.refused("data", "delete", "needed")
    assert "(409" in said
    assert job_id in said
    house.basin("cancel", job_id)
    with house.client() as client:
        client.wait(job_id)
    assert house.basin("data", "delete", "needed") == "needed is deleted.\n"
    assert "there is no dataset 'needed'" in house.refused("data", "show", "needed")


class Frame:
    """What is used of a pandas DataFrame."""

    def to_csv(self, *, index: bool) -> str:
        assert not index
        return "length,label\n" + "".join(f"{number}.5,{'ab'[number % 2]}\n" for number in range(60))


def train(client: Client, data: dict[str, Any]) -> str:
    """The status in which a small job on this data ends."""
    job = {"model": {"name": "logistic"}, "optimizer": {"name": "sgd", "lr": 0.1}, "steps": 5, "batch_size": 8}
    return client.wait(client.submit({**job, "data": {"name": "dataset", **data}}).id).status


def test_the_client_adds_tables_arrays_and_folders(client: Client, tmp_path: Path) -> None:
    table = client.data.add(Frame(), name="frame")
    assert (table.status, table.kind, table.format, table.examples) == ("ready", "table", "csv", 60)
    assert [(one.name, one.kind, one.classes) for one in table.columns] == [
        ("length", "number", None),
        ("label", "category", 2),
    ]
    assert train(client, {"dataset": "frame", "target": "label"}) == "succeeded"

    inputs = np.arange(240, dtype=np.float32).reshape(60, 4)
    changes: list[str] = []
    arrays = client.data.add(
        {"inputs": inputs, "targets": np.arange(60) % 3}, on_change=lambda one: changes.append(one.status)
    )
    assert (arrays.name, arrays.kind, arrays.classes) == ("data", "arrays", {"0": 20, "1": 20, "2": 20})
    assert changes[-1] == "ready"
    assert train(client, {"dataset": arrays.id}) == "succeeded"

    for number in range(40):
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number + 100 * (number % 2), np.uint8)).save(path)
    photos = client.data.add(tmp_path / "photos")
    assert (photos.name, photos.kind, photos.classes) == ("photos", "images", {"class0": 20, "class1": 20})
    assert train(client, {"dataset": "photos"}) == "succeeded"


def test_the_client_lists_corrects_and_deletes(client: Client) -> None:
    before = client.data.add(Frame(), name="corrected")
    assert client.data.add(Frame(), name="corrected").id == before.id
    after = client.data.correct(before.id, {"columns": {"length": {"kind": "category"}}})
    *_, done = client.data.follow(after.id)
    assert (done.status, done.columns[0].kind, done.columns[0].classes) == ("ready", "category", 60)
    assert [one.id for one in client.data.list(name="corrected")] == [after.id, before.id]
    assert [one.columns for one in client.data.list(name="corrected", status="ready", limit=1)] == [()]
    assert client.data.find("corrected").id == after.id
    assert [event.data["status"] for event in client.data.events(after.id) if event.type == "status"][-1] == "succeeded"
    assert client.data.rows(after.id, 1) == ({"length": "0.5", "label": "a"},)
    client.data.delete(after.id)
    assert client.data.find("corrected").id == before.id
    with pytest.raises(Problem) as gone:
        client.data.get(after.id)
    assert gone.value.status == 404
