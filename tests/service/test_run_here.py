"""`basin run`: a job file trained with no server, from the command line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from safetensors.numpy import load_file
from typer.testing import CliRunner

from tests.support.service import ROOT, make_home
from worker.commands import run

JOB = """
model: {name: mlp, hidden: [16]}
data: {name: iris}
optimizer: {name: sgd, lr: 0.1, weight_decay: 5e-4}   # a number, as YAML 1.2 reads it
swa: true
ensemble: {method: checkpoints, every: 5ep, members: 2}
epochs: 20
"""
COMMAND = [sys.executable, "-c", "import typer; from worker.commands import run; typer.run(run)"]


@pytest.fixture
def start(tmp_path: Path, datasets: Callable[[str], Path]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `basin run` on a job file with this text, in a folder of its own."""
    home = make_home(tmp_path / "home", datasets)
    environment = os.environ | {"BASIN_HOME": str(home), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk'}"}
    made: list[subprocess.Popen[str]] = []

    def begin(text: str) -> subprocess.Popen[str]:
        (tmp_path / "job.yaml").write_text(text)
        made.append(
            subprocess.Popen(
                [*COMMAND, "job.yaml"],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return made[-1]

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def test_it_trains_prints_and_leaves_the_weights(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    leftovers = [tmp_path / "job-weights" / f"{name}.safetensors" for name in ("best", "snapshot-7")]
    leftovers[0].parent.mkdir()
    for leftover in leftovers:  # of an earlier run that kept other weights
        leftover.touch()
    process = start(JOB)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")
    assert not any(leftover.exists() for leftover in leftovers)
    lines = out.splitlines()
    assert any(line.startswith("step 80/80  epoch 20/20  loss ") for line in lines)
    assert lines[-1] == "weights: job-weights/"
    assert "\x1b" not in out
    table = [line.split() for line in lines if line.split()[:1] in (["weights"], ["base"], ["swa"])]
    assert table[0] == ["weights", "split", "loss", "accuracy"]
    results = json.loads((tmp_path / "job-weights" / "results.json").read_text())
    assert [f"{results['swa']['test']['accuracy']:.4f}"] == [row[3] for row in table if row[:2] == ["swa", "test"]]
    assert {"ensemble", "member_1", "member_2", "average"} <= set(results)
    for name in ("last", "swa", "snapshot-60", "snapshot-80"):
        tensors = load_file(tmp_path / "job-weights" / f"{name}.safetensors")
        assert sum(tensor.size for key, tensor in tensors.items() if not key.startswith("standardize")) == 131


def test_ctrl_c_stops_it_and_says_so(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = start(JOB.replace("epochs: 20", "epochs: 1000000"))
    assert process.stdout is not None
    assert process.stdout.readline().startswith("step ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("stopped by Ctrl-C at step ")
    assert "job-weights" in err
    assert load_file(tmp_path / "job-weights" / "last.safetensors")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (JOB.replace("sgd", "sdg"), '(did you mean "sgd"?)'),
        (JOB.replace("sgd", "sdg"), "/optimizer/name: "),
        (JOB.replace("epochs: 20", "epochs: 0"), "/epochs: "),
        ("[1, 2]", "a job is a mapping"),
        ("model: {", "job.yaml:1:9"),
    ],
)
def test_a_bad_file_is_refused_with_its_field(tmp_path: Path, text: str, said: str) -> None:
    app = typer.Typer()
    app.command()(run)
    (tmp_path / "job.yaml").write_text(text)
    result = CliRunner().invoke(app, [str(tmp_path / "job.yaml")])
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_divergence_is_a_failure(
    tmp_path: Path, datasets: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASIN_HOME", str(make_home(tmp_path / "home", datasets)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which the command sets for good
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(run)
    Path("job.yaml").write_text(JOB.replace("lr: 0.1", "lr: 1e30").replace("swa: true", "swa: false"))
    result = CliRunner().invoke(app, ["job.yaml"])
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("failed (diverged): ")
