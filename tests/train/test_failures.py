"""Runs that cannot go on say why, and leave nothing that is not finite."""

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from core.engine import loop
from tests.train.runs import Train, job

WILD = {"name": "sgd", "lr": 1e6}


def test_a_diverging_loss_fails_at_its_first_bad_step(run: Train) -> None:
    spec = job(data={"name": "diabetes"}, optimizer=WILD, checkpoints={"every": "1st"}, epochs=50)
    ending, watcher = run(spec)
    assert (ending.outcome, ending.stop_reason) == ("failed", "non_finite")
    assert ending.error
    assert ending.error["code"] == "diverged"
    assert "learning rate" in ending.error["remedy"]
    assert "checkpoint" not in ending.error["remedy"], "whether one was stored is not for the engine to say"
    points = watcher.series()["train.loss"]
    assert not math.isfinite(points[-1][1])
    assert all(math.isfinite(value) for _, value in points[:-1])
    assert [t for t, _ in points] == list(range(len(points)))
    assert ending.progress["step"] == points[-1][0]
    last = max(watcher.checkpoints())
    assert last <= points[-1][0]
    for checkpoint in watcher.checkpoints().values():
        for name in ("weights.safetensors", "state.safetensors"):
            tensors = load_file(Path(checkpoint.folder) / name)
            assert all(bool(each.isfinite().all()) for each in tensors.values() if each.is_floating_point())


def test_divergence_is_the_same_however_often_one_looks(run: Train) -> None:
    """Checkpoints and evaluations make the engine look early; what is reported must not depend on it."""
    seldom = job(data={"name": "diabetes"}, optimizer=WILD, evaluate={"every": "1run"}, epochs=50)
    (one, first), (two, second) = run(seldom), run(seldom, checkpoint_seconds=0.0)
    assert first.series() == second.series()
    assert (one.error, one.progress) == (two.error, two.progress)


def test_weights_that_overflow_behind_a_finite_loss_are_found(run: Train) -> None:
    """Tanh of infinity is 1: the loss can stay finite while weights do not. No checkpoint, no success."""
    spec = job(
        data={"name": "diabetes", "standardize": False},
        model={"name": "mlp", "hidden": [4], "activation": "tanh"},
        optimizer={"name": "sgd", "lr": 1e36},
        epochs=4,
    )
    ending, watcher = run(spec)
    assert ending.stop_reason == "non_finite"
    assert watcher.checkpoints("last") == {}


def test_bad_data_fails_with_its_code(run: Train, tmp_path: Path) -> None:
    ending, watcher = run(job(), dataset=tmp_path / "nothing.safetensors")
    assert ending.error
    assert (ending.outcome, ending.error["code"]) == ("failed", "bad_data")
    assert watcher.events == []


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")]
)
def test_out_of_memory_is_named(run: Train, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def exhausted(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop, "build_training_run", exhausted)
    ending, _ = run(job())
    assert ending.error
    assert ending.error["code"] == "out_of_memory"


def test_a_bug_is_not_dressed_up(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(loop, "build_training_run", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run(job())


def test_a_plan_that_cannot_be_honoured_is_refused(run: Train) -> None:
    ending, _ = run(job(), plan={"compile": True})
    assert ending.error
    assert ending.error["code"] == "engine_error"
    assert "compiled" in ending.error["message"]
