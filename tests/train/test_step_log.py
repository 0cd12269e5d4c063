"""Windows by hand: 7 examples, batches of 3, so the third step of an epoch holds a single example."""

import math

import pytest
import torch

from core.engine.evaluation.step_log import MOST_WAITING, EpochLayout, StepLog

CALENDAR = EpochLayout(examples=7, batch=3, total_steps=8)
LOSSES = [1.0, 2.0, 6.0, 3.0, 5.0, 7.0, 4.0, 8.0]


def log(every: int, first: int = 0) -> StepLog:
    return StepLog(every, CALENDAR, lambda t: t / 10, first)


def note(steps: StepLog, losses: list[float]) -> None:
    for loss in losses:
        steps.record_step(torch.tensor(loss))


def test_calendar_by_hand() -> None:
    assert [CALENDAR.step_examples(t) for t in range(8)] == [3, 3, 1, 3, 3, 1, 3, 3]
    assert [CALENDAR.examples_seen(step) for step in range(9)] == [0, 3, 6, 7, 10, 13, 14, 17, 20]


def test_an_epochs_loss_is_weighted_by_examples() -> None:
    """(3·1 + 3·2 + 1·6) / 7 = 15/7, not the mean of batch means 3; then 31/7, and the run's short rest (4 + 8) / 2."""
    steps = log(3)
    note(steps, LOSSES)
    drained = steps.drain_points()
    where, means, times = drained.series["train.loss"]
    assert where == [2, 5, 7]
    assert means == pytest.approx([15 / 7, 31 / 7, 6.0])
    assert len(times) == 3
    assert drained.series["lr"][:2] == ([2, 5, 7], [0.2, 0.5, 0.7])
    assert drained.last == (6.0, 0.7)
    assert drained.bad is None


@pytest.mark.parametrize("every", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("cut", range(9))
def test_points_do_not_depend_on_when_one_looks_or_resumes(every: int, cut: int) -> None:
    whole = log(every)
    note(whole, LOSSES)
    expected = whole.drain_points().series["train.loss"][:2]

    first = log(every)
    note(first, LOSSES[:cut])
    early = first.drain_points().series.get("train.loss", ([], [], []))
    second = log(every, cut)
    second.restore(first.tensors())
    note(second, LOSSES[cut:])
    late = second.drain_points().series.get("train.loss", ([], [], []))
    assert (early[0] + late[0], early[1] + late[1]) == expected


def test_the_first_bad_loss_is_the_last_point() -> None:
    steps = log(3)
    note(steps, [1.0, 2.0, 6.0, 3.0, math.inf, 1.0, math.nan])
    drained = steps.drain_points()
    assert drained.bad == 4
    assert drained.series["train.loss"][0] == [2, 4]
    assert drained.series["train.loss"][1][1] == math.inf


def test_it_asks_to_be_drained_in_time() -> None:
    steps = log(1)
    assert steps.record_step(torch.tensor(0.0))  # the very first step shows at once
    steps.drain_points()
    wanted = [steps.record_step(torch.tensor(0.0)) for _ in range(MOST_WAITING)]
    assert wanted[-1]
