"""The gallery's job files are jobs, its claims find them, and its judges can say no."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from basin import jobfile
from core.plot.chart import Look
from core.plot.draw import draw
from core.recipe.spec import JobSpec
from gallery.claim import Claim, PathOf, Seen, Trained, by_chance, first_at_most, share
from gallery.rates import jitter
from gallery.run import CLAIMS, HERE, entry, table, verdict

Curves = Mapping[str, list[float]]
MEASURED = {"loss": 0.5, "accuracy": 0.9}
WEIGHTS = ("base", "swa", "average", "ensemble", "member_1", "member_2")


class Falling(dict[str, list[float]]):
    """Every series there is, each of it falling from the same value."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.first = first

    def __missing__(self, series: str) -> list[float]:
        return [self.first * 2.0**-step for step in range(40)]


@dataclass(frozen=True)
class Told:
    """A source of curves that are the same for every job."""

    curves: Curves

    def curve(self, job: str, series: str) -> tuple[list[float], list[float]]:
        values = self.curves[series]
        return list(map(float, range(len(values)))), values


def trained(curves: Curves, stop_reason: str = "completed", seed: int = 0, **results: dict[str, float]) -> Trained:
    """`results` are of the test part, by weights."""
    found = {weights: {"test": {**MEASURED, **results.get(weights, {})}} for weights in WEIGHTS}
    return Trained("job", seed, stop_reason, found, Told(curves))


def named(slug: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.slug == slug)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.slug)
def test_every_claim_has_jobs_and_a_picture_of_them(claim: Claim) -> None:
    """Judge and picture ask for no variant that has no job file, whatever the jobs measured."""
    files = {file.stem: file for file in (HERE / "jobs" / claim.folder).glob("*.yaml")}
    for file in files.values():
        document = jobfile.job(file.read_text(encoding="utf-8"), file.name)
        assert JobSpec.model_validate_json(json.dumps(document)).run_length().total_steps > 0
    runs = {
        name: [trained(Falling(1.0 + place), seed=seed) for seed in claim.seeds] for place, name in enumerate(files)
    }
    seen = claim.judge(runs)
    assert {len(row) for row in seen.table} <= {len(seen.table[0]) if seen.table else 0}
    if isinstance(claim.picture, PathOf):
        assert set(claim.picture.variants) <= set(files)
    else:
        assert "no points yet" not in draw(claim.picture(runs), Look())
    assert claim.slug in entry(claim, seen, len(runs))


def test_claims_about_the_same_jobs_are_about_the_same_seeds() -> None:
    for claim in CLAIMS:
        assert named(claim.folder).seeds == claim.seeds


def test_no_job_file_is_left_over() -> None:
    assert {folder.name for folder in (HERE / "jobs").iterdir()} == {claim.folder for claim in CLAIMS}


@pytest.mark.parametrize(("full", "holds"), [(0.9143, True), (-1.0679, False)])
def test_a_judge_can_say_no(full: float, holds: bool) -> None:
    """A full batch that had left the local minimum would refute the claim, whatever one example does."""
    others = ("one-example", "one-example-lr-0.1", "batch-2", "batch-5")
    runs = {name: [trained({"point.x": [1.2, -1.07]})] * 20 for name in others}
    runs["full"] = [trained({"point.x": [1.2, full]})] * 20
    assert named("local-minimum").judge(runs).holds is holds


def test_epochs_are_counted_from_one() -> None:
    assert first_at_most([0.5, 0.2, 0.1], 0.2) == 2
    assert first_at_most([0.5], 0.2) is None
    runs = {name: [trained({"train.loss": losses})] for name, losses in (
        ("batch-1", [0.1]), ("batch-8", [0.1]), ("batch-32", [0.1]), ("batch-128", [0.5, 0.2]),
        ("full", [0.9, 0.5, 0.3, 0.1]),
    )}  # fmt: skip
    seen = named("epochs-by-batch").judge(runs)
    assert seen.holds
    assert "full batch: 4 epochs" in seen.words
    assert not named("epochs-by-batch").judge({**runs, "batch-8": runs["full"]}).holds


def test_a_robust_claim_fails_aloud_and_a_fragile_one_in_its_own_words() -> None:
    robust, fragile = named("local-minimum"), named("swa-against-decay")
    no = Seen("words", holds=False)
    assert (verdict(robust, no), verdict(fragile, no)) == ("**fails**", "undecided at this scale")
    assert "not asserted; 16 seeds, 0 to 15; 2 jobs" in entry(fragile, no, 2)
    assert "(asserted; no randomness; 2 jobs)" in entry(named("momentum"), no, 2)
    assert share([True, False]) == "1/2"


def test_a_trend_is_no_jitter() -> None:
    """Around the line 1.0, 0.8 … 0.2 the last values lie at 0.1, -0.2, 0.1, 0, 0, whose mean and slope are 0."""
    assert jitter([9.0, 1.0, 0.8, 0.6, 0.4, 0.2]) == pytest.approx(0, abs=1e-12)
    assert jitter([1.1, 0.6, 0.7, 0.4, 0.2]) == pytest.approx((0.06 / 5) ** 0.5)


def test_chance_is_a_sign_test() -> None:
    """6, 7 or 8 of 8 fair coins: (28 + 8 + 1) / 256."""
    assert by_chance(6, 8) == pytest.approx(37 / 256)
    assert by_chance(0, 3) == 1.0


@pytest.mark.parametrize(
    ("worse", "holds"), [([0.6] * 8, True), ([0.6] * 7 + [0.4], False)], ids=["in-every-run", "not-in-one"]
)
def test_statistics_matter_only_if_they_do_in_every_run(worse: list[float], holds: bool) -> None:
    own = [trained({}, swa={"loss": 0.5})] * 8
    borrowed = [trained({}, swa={"loss": loss}) for loss in worse]
    kinds = {f"{kind}-updated": own for kind in ("moving", "calm")}
    seen = named("batch-norm-statistics").judge({**kinds, "moving-borrowed": borrowed, "calm-borrowed": own})
    assert seen.holds is holds


PLATEAU = [1.0, *[1.0] * 40]
RATES = [0.5] * 11 + [0.25] * 10 + [0.125] * 10 + [0.0625] * 10
"""Of epochs 1 to 41: the first evaluation is the best so far, ten later the rate is halved, and so on."""


@pytest.mark.parametrize(
    ("rates", "reason", "holds"),
    [
        (RATES, "stop_lr", True),
        (RATES, "completed", False),
        ([0.5, *RATES[:-1]], "stop_lr", False),  # an epoch too late, as torch counts
    ],
    ids=["by-the-rule", "to-the-end", "too-late"],
)
def test_plateau_decay_is_checked_by_hand(rates: list[float], reason: str, holds: bool) -> None:
    runs = {"plateau": [trained({"val.loss": PLATEAU, "lr": rates}, reason)]}
    assert named("plateau-decay").judge(runs).holds is holds


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table([("a",), ("|y| = 1",)]) == "| a |\n|---|\n| \\|y\\| = 1 |\n"
    assert table(()) == ""
