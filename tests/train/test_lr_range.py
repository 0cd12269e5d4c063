"""The learning-rate range test: trains as the job does, reads what is there, and never gives one number."""

import math
from typing import Any

import pytest

from core.engine.analysis.lr_range import lr_candidates, smooth_losses
from core.errors import InvalidSpec
from core.recipe.analyses.lr_range import LrRange
from tests.support.specs import analysis_of
from tests.train.looks import JOB, Look, kept
from tests.train.runs import Train, Watcher, job, no_trace


def test_it_trains_as_the_job_does(run: Train, look: Look) -> None:
    """At a rate that hardly rises the losses are those of the job with that rate, for each of its seeds; with dropout,
    batch norm, clipping, accumulation and a momentum.
    """
    fields: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": [8], "batch_norm": True, "dropout": 0.3},
        "clip_grad": {"norm": 0.5},
        "batch_size": 10,
        "accumulate": 3,
        "epochs": 8,
    }
    with no_trace():
        found = look([(job(**fields, seed=4), None)], kind="lr_range", low=0.1, high=math.nextafter(0.1, 1), steps=30)
    for each in found.numbers["runs"]:
        series = run(job(**fields, seed=each["seed"]))[1].series()["train.loss"]
        assert each["losses"] == pytest.approx([loss for _, loss in series[:30]], rel=1e-5)
    assert [each["seed"] for each in found.numbers["runs"]] == [4, 5, 6]


def test_three_seeds_and_the_lowest_of_each_reading(look: Look) -> None:
    """Rates rise by one factor, every run ends where its loss has left its lowest, and readings are kept apart."""
    with no_trace():
        found = look([(job(), None)], kind="lr_range", high=1000.0)
    numbers, rates = found.numbers, found.arrays["lr"]
    assert rates[[0, 50, -1]] == pytest.approx([1e-5, 1e-5 * 10 ** (8 * 50 / 99), 1000.0])
    for row, each in zip(found.arrays["losses"], numbers["runs"], strict=True):
        assert 30 < each["steps"] < 100
        assert math.isnan(row[each["steps"]])
        assert each["smoothed"][-1] is None or each["smoothed"][-1] > 4 * min(each["smoothed"][:-1])
        assert each["candidates"]["top"] == pytest.approx(10 * each["candidates"]["tenth"])
        assert each["candidates"]["base"] < each["candidates"]["top"]
    assert len({tuple(each["losses"][:5]) for each in numbers["runs"]}) == 3
    for name, summary in numbers["candidates"].items():
        assert summary["values"] == [each["candidates"][name] for each in numbers["runs"]]
        assert summary["lowest"] == min(summary["values"])
    assert 1e-3 < numbers["candidates"]["tenth"]["lowest"] < 1.0
    assert numbers["advice"][1].startswith("The job's own rate of 0.1 is ")


def test_readings_of_a_curve_that_is_known() -> None:
    """Level, then down by 0.1 a step from 20 to 40, twice as fast at 30, then up: by the definitions."""
    rates = [10 ** (step / 10) for step in range(60)]
    levels = [5.0] * 60
    for step in range(20, 60):
        levels[step] = levels[step - 1] + (0.2 if step > 40 else -0.3 if step == 30 else -0.1)
    found = lr_candidates(rates, levels)
    assert found is not None
    assert found["top"] == rates[40]
    assert found["tenth"] == pytest.approx(rates[30])
    assert found["base"] == rates[22]  # a tenth of 2.3 takes three steps down, the first of which is at 20
    assert found["steepest"] in {rates[29], rates[30]}
    assert lr_candidates(rates, [float(step) for step in range(60)]) is None
    assert lr_candidates(rates, levels[:12]) is None
    blown_up = [*levels[:45], *(90.0 - 8 * step for step in range(10)), *levels[55:]]
    assert lr_candidates(rates, blown_up) == found  # what falls again behind the lowest was higher than ever before


def test_smoothing_counts_the_first_in_full() -> None:
    """With weight ¼: (¼ 4) / ¼, then (¾ 1 + ¼ 8) / (1 - 9/16)."""
    assert smooth_losses([4.0, 8.0], 0.25) == pytest.approx([4.0, 2.75 / 0.4375])
    assert smooth_losses([3.0] * 5, 0.05) == pytest.approx([3.0] * 5)


def test_it_stops_anywhere_and_goes_on_to_the_same_bits(look: Look) -> None:
    """In a run and between runs; a cancel keeps the curves so far."""
    pairs = [(job(model={"name": "mlp", "hidden": [4], "dropout": 0.5}), None)]
    fields: dict[str, Any] = {"kind": "lr_range", "steps": 30, "low": 1e-3, "high": 1e-1}
    whole = look(pairs, **fields)
    for tiles in (7, 30, 75):
        stopped = look(pairs, Watcher(stop_after=tiles), **fields)
        (written,) = stopped.watcher.checkpoints().values()
        resumed = look(pairs, resume=kept(written), **fields)
        assert resumed.numbers == whole.numbers
        assert resumed.arrays["losses"].tobytes() == whole.arrays["losses"].tobytes()
    cancelled = look(pairs, Watcher(stop_after=40, request="cancel"), **fields).numbers
    assert [each["steps"] for each in cancelled["runs"]] == [30, 10, 0]
    assert cancelled["runs"][0] == whole.numbers["runs"][0]
    rates = whole.arrays["lr"].tolist()
    assert rates == pytest.approx([10 ** (-3 + 2 * step / 29) for step in range(30)])
    assert [each["lr"] for each in cancelled["runs"]] == [rates, rates[:10], []]  # beside the losses, one each


FUNCTION = {"model": {"name": "point", "start": [1.0]}, "data": {"name": "function", "function": "square"}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optimizer": {"name": "lbfgs"}, "batch_size": "full"}, "searches the size of each step"),
        ({"optimizer": {"name": "rprop"}, "batch_size": "full"}, "the size of the first step"),
        ({"optimizer": {"name": "schedule_free_sgd", "lr": 1.0}}, "the average replaces"),
        ({"optimizer": {"name": "schedule_free_adamw"}}, "the average replaces"),
        (
            {"optimizer": {"name": "pytorch_optimizer", "optimizer": "prodigy", "lr": 1.0}},
            "estimates its own step size",
        ),
        ({**FUNCTION, "batch_size": 1}, "position of the point"),
    ],
)
def test_where_it_says_nothing_it_is_refused(fields: dict[str, Any], words: str) -> None:
    """With what to do instead."""
    (problem,) = LrRange(job=JOB).problems([job(**fields)])
    assert problem.pointer == "/job"
    assert words in problem.message
    assert problem.hint


def test_what_it_takes() -> None:
    """A job, three seeds at least, rates that rise."""
    for wrong in ({"low": 1.0, "high": 0.1}, {"runs": 1}, {"steps": 5}):
        with pytest.raises(InvalidSpec):
            analysis_of({"kind": "lr_range", "job": JOB, **wrong})
    with pytest.raises(InvalidSpec):
        analysis_of({"kind": "lr_range", "checkpoint": "ckpt_" + "0" * 26})
    fine = LrRange(job=JOB, examples=25)
    alone = job(model={"name": "mlp", "hidden": [4], "batch_norm": True})
    assert [each.pointer for each in fine.problems([alone])] == ["/examples"]
    assert not list(LrRange(job=JOB).problems([alone]))
