"""Checkpoint files are functions of their tensors, carry their digests, and are refused when they do not fit."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.engine.checkpoints.files import write_bytes, write_tensors
from core.engine.events import CheckpointWritten
from tests.train.runs import Train, Watcher, digests, job


def test_equal_tensors_are_equal_bytes(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    one = {"b": base[:6].view(2, 3), "a": base[6:], "n": torch.tensor(3)}
    two = {"n": torch.tensor(3), "a": torch.arange(6.0, 12.0), "b": torch.arange(6.0).view(2, 3)}
    first, second = write_tensors(tmp_path / "1", one), write_tensors(tmp_path / "2", two)
    assert first["sha256"] == second["sha256"] == sha256((tmp_path / "1").read_bytes()).hexdigest()
    assert first["bytes"] == (tmp_path / "1").stat().st_size
    with safe_open(tmp_path / "1", "pt") as file:
        assert file.metadata() is None


def test_files_are_never_written_twice(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"1")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "x", b"2")


def test_a_folder_says_what_is_in_it(run: Train) -> None:
    _, watcher = run(job(model={"name": "mlp", "hidden": [16], "batch_norm": True}, swa=True))
    for kind, roles in (("last", {"weights", "state", "manifest"}), ("swa", {"weights", "manifest"})):
        checkpoint = watcher.checkpoints(kind)[24]
        assert set(checkpoint.files) == roles
        for each in checkpoint.files.values():
            content = (Path(checkpoint.folder) / each["name"]).read_bytes()
            assert (sha256(content).hexdigest(), len(content)) == (each["sha256"], each["bytes"])
        assert json.loads((Path(checkpoint.folder) / "manifest.json").read_text()) == checkpoint.manifest
        assert checkpoint.manifest["files"]["weights"] == checkpoint.files["weights"]
        assert set(checkpoint.metrics) == {"val.loss", "val.accuracy", "test.loss", "test.accuracy"}
    assert watcher.checkpoints()[24].metrics != watcher.checkpoints("swa")[24].metrics
    names = set(load_file(Path(watcher.checkpoints()[24].folder) / "weights.safetensors"))
    assert {"dense0.weight", "dense_norm0.running_var", "output.bias", "standardize.mean", "standardize.std"} <= names


def test_the_digest_chain_by_hand(run: Train) -> None:
    """Each link hashes the one before it with the two tensor files; checkpoints of the clock are no links."""
    _, watcher = run(job(checkpoints={"every": "10st"}), checkpoint_seconds=0.0)
    digest = ""
    for step in (10, 20, 24):
        files = watcher.checkpoints()[step].files
        digest = sha256((digest + files["weights"]["sha256"] + files["state"]["sha256"]).encode()).hexdigest()
        assert watcher.checkpoints()[step].manifest["digest"] == digest
    assert watcher.checkpoints()[9].manifest["digest"] == ""
    assert watcher.checkpoints()[19].manifest["digest"] == watcher.checkpoints()[10].manifest["digest"]


@pytest.fixture
def checkpoint(run: Train) -> CheckpointWritten:
    _, watcher = run(job(), Watcher(stop_after=5))
    return watcher.checkpoints()[5]


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_files_are_found(run: Train, checkpoint: CheckpointWritten, name: str, damage: str) -> None:
    path = Path(checkpoint.folder) / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-100] if damage == "cut" else content)
    ending, watcher = run(job(), resume=checkpoint)
    assert ending.error
    assert ending.error["code"] == "engine_error"
    assert name.split(".", maxsplit=1)[0] in ending.error["message"]
    assert watcher.events == []


def rewritten(checkpoint: CheckpointWritten, role: str, change: dict[str, torch.Tensor | None]) -> None:
    """Change tensors of one file and its digest in the manifest, as a checkpoint of another job would differ."""
    path = Path(checkpoint.folder) / f"{role}.safetensors"
    tensors = {name: tensor for name, tensor in {**load_file(path), **change}.items() if tensor is not None}
    save_file(tensors, path)
    manifest = Path(checkpoint.folder) / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"][role]["sha256"] = sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("weights", {"output.weight": torch.zeros(10, 17)}, "output.weight is torch.float32 (10, 17), not"),
        ("weights", {"output.bias": None}, "output.bias is missing"),
        ("weights", {"dense9.weight": torch.zeros(1)}, "dense9.weight is not known"),
        ("weights", {"output.bias": torch.zeros(10, dtype=torch.float64)}, "torch.float64"),
        ("state", {"optimizer.momentum_buffer": torch.zeros(3)}, "optimizer.momentum_buffer"),
        ("state", {"optimizer.momentum_buffer": None}, "optimizer.momentum_buffer is missing"),
        ("state", {"optimizer.exp_avg": torch.zeros(3)}, "optimizer.exp_avg is not known"),
        ("state", {"rng.cpu": None}, "rng.cpu is missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    run: Train, checkpoint: CheckpointWritten, role: str, change: dict[str, Any], message: str
) -> None:
    rewritten(checkpoint, role, change)
    ending, _ = run(job(), resume=checkpoint)
    assert ending.error
    assert message in ending.error["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 25}, "step 25"),
        ({"kind": "swa"}, "swa"),
        ({"step": None}, "manifest"),
        ({"metrics": None}, "manifest"),
    ],
)
def test_manifests_that_do_not_fit_are_named(
    run: Train, checkpoint: CheckpointWritten, change: dict[str, Any], message: str
) -> None:
    path = Path(checkpoint.folder) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    ending, _ = run(job(), resume=checkpoint)
    assert ending.error
    assert message in ending.error["message"]


def test_the_weights_before_the_first_step_are_kept(run: Train) -> None:
    """Step 0 is that of a job of the same seed which makes a first step of almost no length."""
    _, watcher = run(job(checkpoints={"initial": True}, epochs=2))
    kept = watcher.checkpoints("initial")
    assert list(kept) == [0]
    _, short = run(job(optimizer={"name": "sgd", "lr": 1e-30}, epochs=None, steps=1))
    assert digests(kept[0])["weights"] == digests(short.checkpoints()[1])["weights"]


def test_only_a_job_that_asks_keeps_its_initial_weights(run: Train) -> None:
    assert run(job(epochs=1))[1].checkpoints("initial") == {}


def test_a_run_that_resumes_keeps_no_other_initial_weights(run: Train) -> None:
    """The weights of an attempt that begins at a later step are not initial."""
    spec = job(checkpoints={"initial": True}, epochs=2)
    _, first = run(spec, Watcher(stop_after=3))
    assert list(first.checkpoints("initial")) == [0]
    _, second = run(spec, resume=first.checkpoints()[3])
    assert second.checkpoints("initial") == {}
