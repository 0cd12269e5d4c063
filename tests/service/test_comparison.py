"""Jobs side by side: aligned, averaged, and with an interval that Student would agree with."""

import math
from array import array

import pytest

from core.charts.metrics import Window, job_chart, jobs_chart
from core.db.session import Database
from core.errors import InvalidRequest, NotFound
from core.jobs.attempt.fence import Fence
from core.jobs.metrics.chunks import Chunk, MetricColumns, MetricPoints, record_points
from core.jobs.metrics.comparison import T_975, ComparedJob, align_series, load_compared_jobs, x_values
from tests.support.jobs import OWNER, running, set_state

NAN = math.nan


def measured(db: Database, name: str, steps: list[int], values: list[float], fence: Fence | None = None) -> Fence:
    """A running job with one series, a point a second from its start on; or one more series of the given job."""
    fence = fence or running(db)
    (one,) = load_compared_jobs(db, OWNER, [fence.job_id])
    for number, first in enumerate(range(0, len(steps), 1000)):
        part = steps[first : first + 1000]
        times = [one.began + step for step in part]
        points = MetricPoints(name, part, values[first : first + 1000], times)
        record_points(db, fence, [Chunk(name, 0, number, points)])
    return fence


def found(db: Database, *fences: Fence) -> list[ComparedJob]:
    return load_compared_jobs(db, OWNER, [fence.job_id for fence in fences])


def test_jobs_come_in_the_order_asked_for_and_others_not_at_all(db: Database) -> None:
    first, second = running(db, name="one"), running(db)
    wanted = [second.job_id, first.job_id, second.job_id]
    assert [(one.id, one.name) for one in load_compared_jobs(db, OWNER, wanted)] == [
        (second.job_id, None),
        (first.job_id, "one"),
    ]
    with pytest.raises(NotFound):
        load_compared_jobs(db, "bob", [first.job_id])
    with pytest.raises(NotFound):
        load_compared_jobs(db, OWNER, [first.job_id, "job_01hzzzzzzzzzzzzzzzzzzzzzzz"])


def test_mean_and_interval_by_hand(db: Database) -> None:
    """Three jobs with 1, 2 and 3: the mean is 2, the deviation 1, and t with two degrees of freedom is 4.302653."""
    jobs = [measured(db, "val.loss", [4, 8], values) for values in ([1.0, 5.0], [2.0, 5.0], [3.0, 5.0])]
    one = align_series(db, found(db, *jobs), "val.loss", x="step", max_points=500)
    assert one.x == [4, 8]
    assert [one.values[fence.job_id] for fence in jobs] == [[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]
    assert (one.count, one.mean, one.interpolated) == ([3, 3], [2.0, 5.0], False)
    half = 4.302653 / math.sqrt(3)
    assert one.low == pytest.approx([2 - half, 5.0])
    assert one.high == pytest.approx([2 + half, 5.0])


def test_students_t_by_integration() -> None:
    """Simpson's rule over the density, from 0 to the literal, has to give 0.475."""
    assert len(T_975) == 19
    for freedom, t in enumerate(T_975, start=1):
        scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
        width = t / 2000
        heights = [(1 + (i * width) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(2001)]
        area = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
        assert scale * area * width / 3 == pytest.approx(0.475, abs=1e-10)


def test_where_a_job_has_no_point_its_neighbours_speak_for_it(db: Database) -> None:
    coarse = measured(db, "val.loss", [0, 10], [0.0, 1.0])
    fine = measured(db, "val.loss", [5, 10, 15], [5.0, 3.0, 7.0])
    one = align_series(db, found(db, coarse, fine), "val.loss", x="step", max_points=500)
    assert one.x == [0, 5, 10, 15]
    assert one.values == {coarse.job_id: [0.0, 0.5, 1.0, None], fine.job_id: [None, 5.0, 3.0, 7.0]}
    assert one.interpolated
    assert one.count == [1, 2, 2, 1]
    assert one.mean == [None, 2.75, 2.0, None]


def test_a_job_that_diverged_is_not_left_out(db: Database) -> None:
    well = measured(db, "val.loss", [1, 2, 3], [1.0, 1.0, 1e308])
    ill = measured(db, "val.loss", [1, 2, 3], [1.0, NAN, 1e308])
    one = align_series(db, found(db, well, ill), "val.loss", x="step", max_points=500)
    assert one.mean[0] == one.low[0] == one.high[0] == 1.0
    assert math.isnan(one.mean[1] or 0.0)
    assert one.mean[2] == 1e308


def test_epochs_and_seconds(db: Database) -> None:
    fence = measured(db, "val.loss", [4, 8], [2.0, 1.0])
    other = measured(db, "val.loss", [2, 3], [2.0, 1.0], running(db, batch_size=64))
    jobs = found(db, fence, other)
    assert [one.steps_per_epoch for one in jobs] == [4, 2]  # iris: 105 of 150 are trained on, in batches of 32 and 64
    assert align_series(db, jobs, "val.loss", x="epoch", max_points=500).x == [1, 1.5, 2]
    assert align_series(db, jobs, "val.loss", x="seconds", max_points=500).x == pytest.approx([2, 3, 4, 8], abs=1e-3)
    times = array("d", [jobs[0].began + second for second in (-1, 2, 1)])
    backwards = MetricColumns(array("q", [0, 1, 2]), array("d", [0.0] * 3), times)
    assert list(x_values(jobs[0], backwards, "seconds")) == pytest.approx([0, 2, 2], abs=1e-3)


def test_thinning_keeps_the_extremes_of_every_job_and_exact_values(db: Database) -> None:
    steps = list(range(3000))
    low, high = [1.0] * 3000, [1.0] * 3000
    low[1234], high[77] = -9.0, 9.0
    jobs = [measured(db, "train.loss", steps, values) for values in (low, high)]
    one = align_series(db, found(db, *jobs), "train.loss", x="step", max_points=100)
    assert len(one.x) <= 100
    at = {x: place for place, x in enumerate(one.x)}
    assert {0.0, 77.0, 1234.0, 2999.0} <= set(at)
    assert [one.values[fence.job_id][at[1234.0]] for fence in jobs] == [-9.0, 1.0]
    assert (one.mean[at[77.0]], one.interpolated) == (5.0, False)


def test_a_series_that_nobody_has_is_empty(db: Database) -> None:
    one = align_series(db, found(db, running(db)), "val.loss", x="step", max_points=500)
    assert (one.x, one.mean, one.count) == ([], [], [])


def test_what_measures_the_same_shares_a_panel(db: Database) -> None:
    fence = running(db, name="digits")
    for name in ("lr", "throughput", "val.loss", "train.loss", "val.accuracy", "swa.val.loss", "val.f1"):
        measured(db, name, [1, 2], [0.5, 0.25], fence)
    (subject,) = found(db, fence)
    cut = Window("step", "auto", 1000)
    chart = job_chart(db, subject, None, cut)
    assert chart.title == "digits"
    assert [(panel.title, [curve.label for curve in panel.curves]) for panel in chart.panels] == [
        ("loss", ["train.loss", "val.loss", "swa.val.loss"]),
        ("accuracy", ["val.accuracy"]),
        ("lr", ["lr"]),
    ]
    colours = {curve.label: curve.colour for panel in chart.panels for curve in panel.curves}
    assert colours["val.loss"] == colours["val.accuracy"] != colours["train.loss"]
    chosen = job_chart(db, subject, ["val.f1", "nowhere.loss"], Window("step", "auto", 1000, from_=2))
    assert [(panel.title, list(panel.curves[0].xs)) for panel in chosen.panels] == [("f1", [2]), ("loss", [])]
    with pytest.raises(InvalidRequest):
        job_chart(db, subject, [f"val.m{number}" for number in range(9)], cut)


def test_jobs_of_one_name_are_told_apart(db: Database) -> None:
    fences = [measured(db, "val.loss", [0, 7200], [1.0, value], running(db, name="twin")) for value in (0.5, 0.7)]
    fences.append(measured(db, "val.loss", [0, 7200], [1.0, 0.9], running(db, name="single")))
    jobs = found(db, *fences)
    chart = jobs_chart(db, jobs, ["val.loss"], Window("seconds", "auto", 1000), mean=False)
    labels = [curve.label for curve in chart.panels[0].curves]
    assert labels == [f"twin …{fences[0].job_id[-6:]}", f"twin …{fences[1].job_id[-6:]}", "single"]
    assert chart.x_label == "minutes since the start"
    assert list(chart.panels[0].curves[0].xs) == pytest.approx([0, 120], abs=0.1)
    with_mean = jobs_chart(db, jobs, ["val.loss"], Window("step", "auto", 1000), mean=True).panels[0]
    assert [curve.faint for curve in with_mean.curves] == [True, True, True, False]
    assert list(with_mean.curves[-1].ys) == pytest.approx([1.0, 0.7])
    band = with_mean.curves[-1].band
    assert band is not None
    assert band.high[1] - band.low[1] == pytest.approx(2 * 4.302653 * 0.2 / math.sqrt(3), rel=1e-6)


def test_a_queued_job_has_a_picture_too(db: Database) -> None:
    fence = running(db)
    set_state(db, fence.job_id, status="queued")
    (subject,) = found(db, fence)
    chart = job_chart(db, subject, None, Window("seconds", "auto", 1000))
    assert (chart.title, [panel.curves for panel in chart.panels]) == (fence.job_id, [[]])
