"""`basin run` with a path as the data of the job: prepared once on this machine, printed, trained on, or refused."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from click.testing import Result
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

from core.settings import Settings
from tests.support.prepare import prepare_spec
from tests.support.service import ROOT, until
from worker.commands import run
from worker.datasets.local import PrepareFailed
from worker.datasets.local_cache import held_local
from worker.prepare.launch import PrepareLauncher

JOB = "model: {name: mlp, hidden: [8]}\noptimizer: {name: sgd, lr: 0.1}\nepochs: 2\nbatch_size: 8\ndata: "
HANGING = """
import functools, typer
import worker.datasets.local as local
from worker.commands import run
local.PrepareLauncher = functools.partial(local.PrepareLauncher, module="tests.support.hanging_prepare")
typer.run(run)
"""
Run = Callable[[str], Result]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / "datasets" / "local"


@pytest.fixture
def run_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a job with this `data` in a folder of its own."""
    monkeypatch.setenv("BASIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which the command sets for good
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(run)

    def begin(data: str) -> Result:
        Path("job.yaml").write_text(JOB + data)
        return CliRunner().invoke(app, ["job.yaml"])

    return begin


def write_table(path: Path, rows: int = 60) -> None:
    lines = [f"{number * 0.5},{'xyz'[number % 3]},{'ab'[number % 2]}" for number in range(rows)]
    path.write_text("\n".join(["length,kind,label", *lines, ",x,a", ""]))


def write_images(folder: Path) -> None:
    for number in range(40):
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number + 100 * (number % 2), np.uint8)).save(path)


def write_arrays(path: Path) -> None:
    np.savez(path, inputs=np.arange(240, dtype=np.float32).reshape(60, 4), targets=np.arange(60) % 3)


def test_a_table_is_prepared_once(run_job: Run, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run starts with what the first has left; other options are another preparation."""
    write_table(tmp_path / "train.csv")
    first = run_job("{path: ./train.csv, target: label}")
    assert first.exit_code == 0, first.output
    assert first.stderr.splitlines() == [
        "train.csv: 61 examples (table)",
        "  length: number, 1 missing  0 to 29.5",
        "  kind: category  3 values",
        "  label: category  2 values",
    ]
    tensors = load_file(tmp_path / "job-weights" / "last.safetensors")
    assert any(name.startswith("standardize.") for name in tensors)
    (kept,) = cache.glob("[!.]*")
    monkeypatch.setattr("worker.datasets.local.PrepareLauncher", None)  # nothing can be prepared any more
    second = run_job('{"name": "dataset", "dataset": "./train.csv", "target": "label"}')
    assert (second.exit_code, second.stdout, second.stderr) == (0, first.stdout, first.stderr)
    monkeypatch.setattr("worker.datasets.local.PrepareLauncher", PrepareLauncher)
    third = run_job("{path: ./train.csv, target: label, options: {columns: {length: {kind: category}}}}")
    assert "length: category, 1 missing  60 values" in third.stderr
    assert kept in (both := list(cache.glob("[!.]*")))
    assert len(both) == 2


@pytest.mark.parametrize(
    ("write", "data", "said"),
    [
        (write_images, "./photos", "photos: 40 examples (images)\n  classes: class0 (20), class1 (20)\n"),
        (write_arrays, "./mine.npz", "mine.npz: 60 examples (arrays)\n  classes: 0 (20), 1 (20), 2 (20)\n"),
    ],
    ids=["images", "arrays"],
)
def test_a_folder_of_images_and_arrays(
    run_job: Run, tmp_path: Path, write: Callable[[Path], None], data: str, said: str
) -> None:
    write(tmp_path / data)
    done = run_job(data)
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith(said)
    results = json.loads((tmp_path / "job-weights" / "results.json").read_text())
    assert 0 <= results["base"]["test"]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("content", "data", "said"),
    [
        ("a,a\n1,2\n", "./t.csv", ["t.csv cannot be used:", "  row 1, column a: two columns are named 'a'"]),
        ("a,b\n1,2\n3\n4\n", "./t.csv", ["  row 3: the row has 1 cell", "  row 4: the row has 1 cell"]),
        ("", "./t.csv", ["  the file is empty"]),
        ("a,label\n1,2\n", "./u.csv", ["job.yaml: data: there is no file or folder u.csv"]),
        ("a,label\n1,2\n3,4\n", "./t.csv", ['a table needs the column to predict (most likely "label"; ']),
        ("a,label\n1,2\n3,4\n", "{path: ./t.csv, target: lable}", ['"lable" (did you mean "label"?)']),
        ("a,b\n1,2\n", "{path: ./t.csv, options: {delimeter: ','}}", ["/data/options/delimeter: unknown field"]),
        ("a,b\n1,2\n", "{path: ./t.csv, format: cvs}", ["/data/format: "]),
        ("a,b\n1,2\n", "{name: dataset, dataset: t}", ["/data/dataset: there is no service here", "./train.csv"]),
    ],
)  # fmt: skip
def test_bad_data_is_refused_with_every_reason(
    run_job: Run, tmp_path: Path, content: str, data: str, said: list[str]
) -> None:
    (tmp_path / "t.csv").write_text(content)
    done = run_job(data)
    assert (done.exit_code, done.stdout) == (2, "")
    for each in said:
        assert each in done.stderr
    assert list(tmp_path.glob("home/datasets/local/.making-*")) == []
    assert not (tmp_path / "job-weights").exists()


def test_a_link_in_a_folder_is_refused(run_job: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "photos")
    (tmp_path / "photos" / "class0" / "passwd").symlink_to("/etc/passwd")
    done = run_job("./photos")
    assert (done.exit_code, done.stderr) == (
        2,
        "basin run: photos cannot be used:\n  class0/passwd is a symbolic link\n",
    )


def test_a_job_with_other_mistakes_is_refused_before_its_data_is_read(run_job: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv")
    done = run_job("{path: ./train.csv, target: label}\nseed: x")
    assert (done.exit_code, "/seed: " in done.stderr) == (2, True)
    assert not (tmp_path / "home").exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    write_table(path)
    content = path.read_bytes()
    settings = Settings.model_validate({"home": tmp_path / "home"})

    def change(_read: int) -> None:
        path.write_bytes(content.replace(b"x", b"w"))

    with (
        pytest.raises(PrepareFailed, match="was changed while it was read"),
        held_local(path, prepare_spec(), settings, on_read=change),
    ):
        pass
    assert list((tmp_path / "home" / "datasets" / "local").glob("[!.]*")) == []


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`basin run` whose preparation never ends."""
    write_table(tmp_path / "train.csv")
    (tmp_path / "job.yaml").write_text(JOB + "{path: ./train.csv, target: label}")
    environment = os.environ | {
        "BASIN_HOME": str(tmp_path / "home"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk'}",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, "job.yaml"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_while_the_data_is_prepared_leaves_nothing(hanging: subprocess.Popen[str], cache: Path) -> None:
    until("the data is being prepared", lambda: list(cache.glob(".making-*/basin-prepare-*/out")))
    hanging.send_signal(signal.SIGINT)
    out, err = hanging.communicate(timeout=30)
    assert (hanging.returncode, out) == (130, "")
    assert err == "basin run: stopped by Ctrl-C while the data was prepared; nothing was trained\n"
    assert [path.name for path in cache.iterdir()] == [".locks"]
