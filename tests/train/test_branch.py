"""A job that goes on from another one's checkpoint ends with the bits of one that had its recipe from the start."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.engine.events import CheckpointWritten
from core.errors import InvalidSpec
from core.recipe.branch import fork_spec, reset_parts
from tests.train.runs import OF_STEPS, Train, Watcher, digests, job

NORMED = {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.1}
PARENT: dict[str, Any] = {"model": NORMED, "schedule": {"name": "constant"}, "checkpoints": {"every": "5st"}}
FORK_AT = 10  # of 24 steps
# Endings whose whole run would have been the parent's up to step 10, so that a run from the start is the oracle.
ENDINGS: dict[str, dict[str, Any]] = {
    "decay": {"schedule": {"name": "multistep", "milestones": ["12st", "18st"]}},
    "longer": {"epochs": 5},
    "shorter": {"epochs": None, "steps": 17},
    "swa": {"swa": {"start": "11st", "every": "2st", "swag": True}, "epochs": 4},
    "ema": {"ema": {"start": "12st", "every": "3st", "warmup": True}},
    "ensemble": {"ensemble": {"method": "checkpoints", "every": "6st", "members": 2}},
    "patience": {"early_stopping": {"patience": 2, "start_from": "12st"}, "evaluate": {"every": "3st"}},
    "rollback": {"rollback": True, "log_every": 2},
}


def parent_with(run: Train, **fields: Any) -> tuple[Any, dict[int, CheckpointWritten]]:
    spec = job(**(PARENT | fields))
    _, watcher = run(spec)
    return spec, watcher.checkpoints()


@pytest.mark.parametrize("name", ENDINGS)
def test_a_fork_ends_as_if_it_had_been_meant_so(run: Train, name: str) -> None:
    parent, checkpoints = parent_with(run)
    child = fork_spec(parent, ENDINGS[name], FORK_AT)
    expected, whole = run(child)
    found, watcher = run(child, resume=checkpoints[FORK_AT], anew=reset_parts(parent, child))
    assert watcher.start == FORK_AT
    assert found.results == expected.results
    assert (found.outcome, found.stop_reason) == (expected.outcome, expected.stop_reason)
    last = expected.progress["step"]
    ours, theirs = digests(watcher.checkpoints()[last]), digests(whole.checkpoints()[last])
    assert ours["weights"] == theirs["weights"]
    # The place that a rollback goes back to is named by the chain of checkpoints before it, which is another one.
    # So is how many members an ensemble of its own missed before.
    assert name in {"rollback", "ensemble"} or ours["state"] == theirs["state"]
    for series, points in whole.series().items():
        first = 18 if series.startswith("ensemble") else FORK_AT + (series not in OF_STEPS)  # from 18 on it is whole
        later = [point for point in points if point[0] >= first]
        assert watcher.series().get(series, [])[-len(later) :] == later, series


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_fork_can_be_interrupted_like_any_job(run: Train, stop: int) -> None:
    parent, checkpoints = parent_with(run, swa={"start": "6st", "every": "2st"}, ema={"decay": 0.9, "with_swa": True})
    child = fork_spec(parent, {"swa": {"start": "14st", "every": "1st"}, "seed": 5, "optimizer": faster()}, FORK_AT)
    parts = reset_parts(parent, child)
    assert parts == ("swa", "swag", "mark"), "the moving average goes on, the other begins again"
    expected, whole = run(child, resume=checkpoints[FORK_AT], anew=parts)
    assert expected.results["swa"] != expected.results["base"]
    _, first = run(child, Watcher(stop_after=stop), resume=checkpoints[FORK_AT], anew=parts)
    again, second = run(child, resume=first.checkpoints()[FORK_AT + stop])
    assert again.results == expected.results
    for kind in ("last", "swa", "ema"):
        assert digests(second.checkpoints(kind)[24]) == digests(whole.checkpoints(kind)[24])


def test_members_of_another_run_are_missing_and_nobody_counts_them(run: Train) -> None:
    """Of five members those of steps 4 and 8 are nobody's."""
    parent, checkpoints = parent_with(run)
    child = fork_spec(parent, {"ensemble": {"method": "checkpoints", "every": "4st", "members": 5}}, FORK_AT)
    found, watcher = run(child, resume=checkpoints[FORK_AT], anew=reset_parts(parent, child))
    _, first = run(child, Watcher(stop_after=3), resume=checkpoints[FORK_AT], anew=reset_parts(parent, child))
    again, _ = run(child, resume=first.checkpoints()[13])
    assert sorted(watcher.checkpoints("snapshot")) == [12, 16, 20, 24]
    assert [step for step, _ in watcher.series()["ensemble.val.loss"]] == [12, 16, 20, 24]
    assert {name for name in found.results if name.startswith("member")} == {f"member_{n}" for n in range(1, 5)}
    assert again.results == found.results


@pytest.mark.parametrize(("kind", "begins"), [("swa", ()), ("ema", ("ema",))])
def test_a_fork_may_change_whose_statistics_an_average_has(run: Train, kind: str, begins: tuple[str, ...]) -> None:
    """SWA's weights go on. EMA's statistics are part of its state, so it begins again."""
    fields = {"swa": {"start": "6st", "every": "2st"}, "ema": {"decay": 0.9, "start": "12st"}}[kind]
    parent, checkpoints = parent_with(run, **{kind: fields})
    child = fork_spec(parent, {kind: {**fields, "update_bn": False}}, FORK_AT)
    parts = reset_parts(parent, child)
    assert parts == (*begins, "mark")
    expected, _ = run(child)
    found, _ = run(child, resume=checkpoints[FORK_AT], anew=parts)
    assert found.results == expected.results


def faster() -> dict[str, Any]:
    return {"name": "sgd", "lr": 0.2, "momentum": 0.9}


def test_a_finished_job_can_be_made_longer(run: Train) -> None:
    """From its very last checkpoint, which holds results that are none for the child."""
    parent, checkpoints = parent_with(run)
    child = fork_spec(parent, {"epochs": 6}, 24)
    expected, _ = run(child)
    found, watcher = run(child, resume=checkpoints[24], anew=reset_parts(parent, child))
    assert found.results == expected.results
    assert (watcher.start, found.progress["step"]) == (24, 48)


@pytest.mark.parametrize("step", [5, 20])
def test_a_retry_is_the_same_run(run: Train, step: int) -> None:
    spec = job(**PARENT, swa={"start": "6st", "every": "2st"}, rollback=True)
    expected, whole = run(spec)
    found, watcher = run(spec, resume=whole.checkpoints()[step], anew=())
    assert found.results == expected.results
    assert digests(watcher.checkpoints()[24]) == digests(whole.checkpoints()[24])


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"model": {"name": "logistic"}}, "/changes/model"),
        ({"data": {"name": "iris"}}, "/changes/data"),
        ({"batch_size": 12}, "/changes/batch_size"),
        ({"optimizer": {"name": "adam"}}, "/changes/optimizer"),
        ({"optimizer": {"name": "sgd", "lr": 0.1}}, "/changes/optimizer/momentum"),
        ({"schedule": {"name": "cosin"}}, "/changes/schedule/name"),
        ({"epoch": 5}, "/changes/epoch"),
        ({"epochs": 1}, "/changes/epochs"),
    ],
)
def test_what_would_change_the_past_is_refused(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        fork_spec(job(**PARENT), changes, FORK_AT)
    assert [problem.pointer for problem in refused.value.errors] == [pointer]


def test_a_job_begins_with_the_weights_of_another(run: Train) -> None:
    """Weights and batch norm's statistics as they stood; optimizer, averages and the data's own scale are new."""
    _, checkpoints = parent_with(run, data={"name": "digits", "validation": 0.1, "test": 0.7})
    weights = Path(checkpoints[max(checkpoints)].folder) / "weights.safetensors"
    spec = job(**PARENT, ema={"decay": 0.9}, optimizer={"name": "adam", "lr": 1e-30}, no_decay=["bias"])
    ending, watcher = run(spec, initial=weights, checkpoint_seconds=0.0)
    found, kept = (load_file(path) for path in (first_weights(watcher), weights))
    statistics = {name for name in kept if "norm" in name and ("running" in name or "batches" in name)}
    assert statistics
    assert found.keys() == kept.keys()
    for name in found.keys() - statistics:
        same = np.array_equal(found[name], kept[name])
        assert same != name.startswith("standardize"), name
    for name in statistics:
        assert not np.array_equal(found[name], kept[name]), "they go on from where they stood"
    assert int(found["dense_norm0.num_batches_tracked"]) == int(kept["dense_norm0.num_batches_tracked"]) + 1
    again, second = run(spec, Watcher(stop_after=5), initial=weights)
    resumed, _ = run(spec, resume=second.checkpoints()[5])
    assert (again.outcome, resumed.results) == ("stopped", ending.results)


def first_weights(watcher: Watcher) -> Path:
    return Path(watcher.checkpoints()[1].folder) / "weights.safetensors"


def test_weights_of_another_shape_are_no_start(run: Train, tmp_path: Path) -> None:
    _, checkpoints = parent_with(run)
    weights = Path(checkpoints[24].folder) / "weights.safetensors"
    ending, _ = run(job(model={"name": "mlp", "hidden": [12]}), initial=weights)
    assert ending.error is not None
    assert "weights do not fit this job" in ending.error["message"]
    (tmp_path / "cut").write_bytes(weights.read_bytes()[:100])
    ending, _ = run(job(**PARENT), initial=tmp_path / "cut")
    assert ending.error is not None
    assert "cannot read the weights to begin with" in ending.error["message"]
