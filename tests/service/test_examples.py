"""The job files in examples/ whose data are a file: made, prepared in the confined process, trained, and good."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from basin.data_files import find_local_source
from basin.job_file import read_job
from tests.support.service import ROOT
from worker.commands import run

EXAMPLES = ROOT / "examples"
GOALS = {
    "flights": ("accuracy", 0.85),
    "houses": ("r2", 0.95),
    "penguins": ("accuracy", 0.94),
    "shapes": ("accuracy", 0.9),
    "waves": ("accuracy", 0.95),
}
"""Job file -> what it reaches at least on its test split."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder as it is committed, and the data that its script makes."""
    folder = tmp_path_factory.mktemp("repository") / "examples"
    (folder / "data").mkdir(parents=True)
    for path in (*EXAMPLES.glob("*.yaml"), EXAMPLES / "data" / "make.py", EXAMPLES / "data" / "penguins.csv"):
        shutil.copy(path, folder / path.relative_to(EXAMPLES))
    made = subprocess.run([sys.executable, folder / "data" / "make.py"], check=True, capture_output=True, text=True)
    assert all((folder.parent / line).exists() for line in made.stdout.split())
    return folder


def test_every_example_with_a_file_has_a_goal() -> None:
    """An example that no test trains is wrong after the next renamed field."""
    jobs = {path.stem: read_job(str(path)) for path in EXAMPLES.glob("*.yaml")}
    with_paths = {name for name, job in jobs.items() if isinstance(job["data"], str) or "path" in job["data"]}
    assert with_paths == set(GOALS)
    assert find_local_source(jobs["penguins"], str(EXAMPLES / "penguins.yaml")) is not None


@pytest.mark.parametrize("name", sorted(GOALS))
def test_an_example_trains(name: str, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `basin run` does it, with all epochs of the file: a network of the size that the page shows has learned."""
    monkeypatch.setenv("BASIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    app = typer.Typer()
    app.command()(run)
    done = CliRunner().invoke(app, [str(examples / f"{name}.yaml"), "--out", str(tmp_path / "weights")])
    assert done.exit_code == 0, done.output
    metric, goal = GOALS[name]
    reached = re.findall(rf"test\.{metric} ([\d.]+)", done.stdout)
    assert float(reached[-1]) >= goal
    assert (tmp_path / "weights" / "last.safetensors").is_file()
