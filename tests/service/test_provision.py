"""What an attempt finds on disk: verified checkpoints, written datasets, and nothing of workers that are gone."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner

from core.jobs.checkpoints.records import CheckpointRow
from core.recipe.data.iris import Iris
from core.recipe.data.materialise import BUILT_IN, dataset_path, read_data
from core.store.local import LocalStore
from tests.support.service import gone
from worker import provision
from worker.commands import worker

PREFIX = "jobs/job_x/1-300-abc"
MANIFEST = {"step": 300, "digest": "d1"}
CONTENTS = {
    "weights": ("weights.safetensors", b"w" * 1000),
    "state": ("state.safetensors", b"s" * 1000),
    "manifest": ("manifest.json", json.dumps(MANIFEST).encode()),
}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with one checkpoint."""
    filled = LocalStore(tmp_path / "store")
    for name, content in CONTENTS.values():
        (tmp_path / name).write_bytes(content)
        filled.put_file(tmp_path / name, f"{PREFIX}/{name}")
    return filled


@pytest.fixture
def row() -> CheckpointRow:
    files = {
        role: {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for role, (name, content) in CONTENTS.items()
    }
    weights = files["weights"]
    return CheckpointRow(
        id="ckpt_x",
        job_id="job_x",
        attempt=1,
        step=300,
        epoch=7,
        kind="last",
        key=PREFIX,
        sha256=str(weights["sha256"]),
        bytes=1000,
        files=files,
        metrics={},
        manifest=MANIFEST,
        status="good",
        created_at=0.0,
        pinned_at=None,
        superseded=None,
    )


def test_a_whole_checkpoint_is_fetched(store: LocalStore, row: CheckpointRow, tmp_path: Path) -> None:
    resume = provision.fetch_checkpoint(store, row, tmp_path / "resume")
    assert resume.weights.read_bytes() == CONTENTS["weights"][1]
    assert resume.state.read_bytes() == CONTENTS["state"][1]
    assert resume.manifest == MANIFEST


@pytest.mark.parametrize("role", list(CONTENTS))
@pytest.mark.parametrize("damage", ["flipped", "short", "long", "missing"])
def test_no_damage_gets_through(store: LocalStore, row: CheckpointRow, tmp_path: Path, role: str, damage: str) -> None:
    name, content = CONTENTS[role]
    path = tmp_path / "store" / PREFIX / name
    path.unlink()
    if damage != "missing":
        flipped = bytes([content[0] ^ 1]) + content[1:]
        path.write_bytes({"flipped": flipped, "short": content[:-1], "long": content + b"x"}[damage])
    with pytest.raises(provision.BadCheckpoint, match=name):
        provision.fetch_checkpoint(store, row, tmp_path / "resume")


def test_a_dead_workers_folder_is_removed_and_a_living_ones_stays(tmp_path: Path) -> None:
    """The lock of a worker that was killed is gone with it."""
    script = (
        "import sys; from pathlib import Path; from worker.provision import Scratch;"
        "scratch = Scratch(Path(sys.argv[1]), sys.argv[2]); scratch.open();"
        "(Path(sys.argv[1]) / sys.argv[2] / 'job_x-1').mkdir(); print('open', flush=True); sys.stdin.read()"
    )
    others = {}
    for name in ("dead", "living"):
        others[name] = subprocess.Popen(
            [sys.executable, "-c", script, tmp_path, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stdout = others[name].stdout
        assert stdout is not None
        assert stdout.readline() == b"open\n"
    others["dead"].kill()
    others["dead"].wait()
    mine = provision.Scratch(tmp_path, "mine")
    mine.open()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["living", "mine"]
    with mine.attempt_folder("job_y", 2) as folder:
        (folder.out / "checkpoint").touch()
    assert not folder.path.exists()
    mine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["living"]
    for process in others.values():
        process.kill()
        process.communicate()


def test_a_missing_dataset_is_written_and_a_folder_that_cannot_be_is_the_workers_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = provision.dataset_file(Iris(), tmp_path)
    assert path == dataset_path(Iris(), tmp_path)
    assert path.stat().st_size > 1000
    with pytest.raises(provision.DatasetUnavailable) as caught:
        provision.dataset_file(Iris(), path)
    assert "Traceback" not in str(caught.value)
    assert "FileExistsError" in caplog.text


def test_only_a_dataset_that_cannot_exist_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Iris, "model_dump_json", lambda _: '{"name": "none such"}')
    with pytest.raises(provision.BadDataset, match="the dataset iris cannot be made: ") as caught:
        provision.dataset_file(Iris(), tmp_path)
    assert "Traceback" not in str(caught.value)
    assert "Traceback" in caplog.text


def test_a_writer_of_datasets_dies_with_its_worker(tmp_path: Path) -> None:
    """It leads a session of its own, so no Ctrl-C reaches it; a worker that is killed takes it along."""
    script = (
        "import sys, subprocess, os, time; from pathlib import Path; from worker import provision;"
        "process = provision._start_materialise(Path(sys.argv[1]), ['digits'] * 9000);"
        "print(process.pid, os.getsid(process.pid), flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid, session = map(int, parent.stdout.readline().split())
    assert pid == session
    child = psutil.Process(pid)
    parent.kill()
    parent.communicate()
    assert gone(child, 10.0)


def test_datasets_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    for name in BUILT_IN:
        dataset_path(read_data(name), tmp_path).touch()
    assert provision.prefetch_datasets(tmp_path) is None


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--queues", "tpu"], {}, "its queues are cpu, gpu or both"),
        (["--queues", "gpu"], {"CUDA_VISIBLE_DEVICES": ""}, "shows no GPU"),
        ([], {"BASIN_LEASE_SECONDS": "1"}, "lease_seconds must be at least twice beat_seconds"),
        (["--slots", "0"], {}, "slots"),
    ],
)
def test_a_worker_that_cannot_work_says_why(arguments: list[str], environment: dict[str, str], said: str) -> None:
    app = typer.Typer()
    app.command()(worker)
    result = CliRunner().invoke(app, arguments, env=environment)
    assert result.exit_code == 2
    assert said in result.stderr
