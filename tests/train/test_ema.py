"""An exponential moving average is a geometric sum, of batch norm's statistics too; and nobody notices it."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.engine.events import CheckpointWritten
from tests.train.runs import Train, digests, job

NORMED = {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.1}


def weights(checkpoint: CheckpointWritten) -> dict[str, Any]:
    return load_file(f"{checkpoint.folder}/weights.safetensors")


def averaged(members: list[dict[str, Any]], decays: list[float]) -> dict[str, Any]:
    """E <- d e + (1 - d) w in float64, beginning as a copy; whole numbers are copied. Slow, by the definition."""
    found = {name: value.astype(np.float64) for name, value in members[0].items()}
    for member, decay in zip(members[1:], decays, strict=True):
        for name, value in member.items():
            found[name] = value if value.dtype == np.int64 else decay * found[name] + (1 - decay) * value
    return found


@pytest.mark.parametrize(
    ("ema", "steps", "decays"),
    [
        ({"decay": 0.9}, list(range(1, 25)), [0.9] * 23),
        ({"decay": 0.9, "start": "5st", "every": "4st"}, [5, 9, 13, 17, 21], [0.9**4] * 4),
        ({"half_life": "3st"}, list(range(1, 25)), [0.7937005259840998] * 23),
        (
            {"decay": 0.8, "warmup": {"gamma": 2.0, "power": 0.75}, "every": "6st"},
            [6, 12, 18, 24],
            [min(0.8, 1 - (1 + t / 2) ** -0.75) ** 6 for t in (6, 12, 18)],
        ),
    ],
    ids=["decay", "start-every", "half-life", "warmup"],
)
def test_ema_is_a_geometric_sum(run: Train, ema: dict[str, Any], steps: list[int], decays: list[float]) -> None:
    ending, watcher = run(job(model=NORMED, ema=ema), checkpoint_seconds=0.0)
    expected = averaged([weights(watcher.checkpoints()[step]) for step in steps], decays)
    kept = watcher.checkpoints("ema")[24]
    found = weights(kept)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
    assert kept.manifest["models"] == len(steps)
    measured = {f"{split}.{name}": v for split, part in ending.results["ema"].items() for name, v in part.items()}
    assert kept.metrics == measured


def test_what_counts_batches_goes_on_counting(run: Train) -> None:
    """Torch's averaged model freezes num_batches_tracked at its first value when buffers are averaged too."""
    _, watcher = run(job(model=NORMED, ema={"decay": 0.9}))
    assert weights(watcher.checkpoints("ema")[24])["dense_norm0.num_batches_tracked"] == 24


def test_the_trained_weights_never_feel_it(run: Train) -> None:
    plain_ending, plain = run(job(model=NORMED))
    ending, watcher = run(job(model=NORMED, ema={"decay": 0.9}, evaluate={"every": "3st"}))
    assert digests(watcher.checkpoints()[24])["weights"] == digests(plain.checkpoints()[24])["weights"]
    assert watcher.series()["train.loss"] == plain.series()["train.loss"]
    assert ending.results["base"] == plain_ending.results["base"]
    assert [step for step, _ in watcher.series()["ema.val.loss"]] == list(range(3, 25, 3))
    assert ending.results["ema"] != ending.results["base"]


def test_before_its_start_there_is_nothing_to_judge(run: Train) -> None:
    ending, watcher = run(job(ema={"start": "17st"}, evaluate={"every": "4st"}))
    assert [step for step, _ in watcher.series()["ema.val.loss"]] == [20, 24]
    assert watcher.series()["ema.test.loss"] == [(24, ending.results["ema"]["test"]["loss"])]


def test_beside_swa_both_are_what_they_are_alone(run: Train) -> None:
    swa = {"start": "10st", "every": "3st"}
    both, watcher = run(job(model=NORMED, swa=swa, ema={"decay": 0.9, "with_swa": True}))
    alone, single = run(job(model=NORMED, swa=swa))
    assert both.results["swa"] == alone.results["swa"]
    assert digests(watcher.checkpoints("swa")[24]) == digests(single.checkpoints("swa")[24])
    assert set(both.results) == {"base", "swa", "ema"}
