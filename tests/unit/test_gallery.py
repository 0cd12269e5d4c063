"""The gallery's job files are jobs, its claims find them, and its judges can say no."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from basin import job_file
from basin.shapes import Job
from core.plot.chart import Style
from core.plot.draw import draw_picture
from core.recipe.spec import JobSpec
from gallery.claim import (
    Claim,
    Found,
    PathOf,
    PicturesOf,
    Request,
    Runs,
    Seen,
    Trained,
    by_chance,
    first_at_most,
    share,
)
from gallery.claim import (
    Look as Asked,
)
from gallery.flatness import BATCHES, matched
from gallery.rates import jitter
from gallery.run import CLAIMS, HERE, counted, draw_pictures, entry, looked, looks_at, table, verdict
from gallery.surfaces import rise
from tests.support.results import SAMPLES, Result
from tests.support.specs import analysis_of

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
    """A source of curves that are the same for every job; an analysis has left one picture and its arrays."""

    curves: Curves
    arrays: Mapping[str, Any] = field(default_factory=dict)

    def curve(self, job: str, series: str) -> tuple[list[float], list[float]]:
        values = self.curves[series]
        return list(map(float, range(len(values)))), values

    def kept(self, job: str, kind: str) -> list[str]:
        return [f"ckpt_{place:026}" for place in range(3)]

    def file(self, analysis: str, name: str) -> bytes:
        if name.endswith(".svg"):
            return f"<svg>{analysis} {name}</svg>".encode()
        stored = io.BytesIO()
        np.savez(stored, **self.arrays)
        return stored.getvalue()


def trained(curves: Curves, stop_reason: str = "completed", seed: int = 0, **results: dict[str, float]) -> Trained:
    """`results` are of the test part, by weights."""
    found = {weights: {"test": {**MEASURED, **results.get(weights, {})}} for weights in WEIGHTS}
    return Trained(f"job_{seed:026}", seed, stop_reason, found, Told(curves))


def sample(request: Request) -> Result:
    """What an analysis of this kind tells, for as many weights as it was asked about."""
    count = len(request.get("checkpoints", [None]))
    asked: dict[str, dict[str, Any]] = {
        "sharpness": {"count": count},
        "average": {"count": count},
        "landscape": {"dimensions": request.get("dimensions", 2), "splits": request.get("splits", ["train"])},
        "trajectory": {"steps": 0, "splits": request.get("splits", ["train"])},
    }
    numbers, arrays = SAMPLES[request["kind"]](**asked.get(request["kind"], {}))
    for place in numbers.get("path", ()):
        place["checkpoint"] = f"ckpt_{place['step']:026}"
    return numbers, arrays


def shown(claim: Claim, runs: Runs) -> Runs:
    """With what its looks would have found, had the service been asked. What they post is an analysis."""
    for look in looks_at(claim.folder):
        found = {}
        for run, request in look.ask(runs):
            assert analysis_of(request).kind == request["kind"]
            assert run.job not in found
            numbers, arrays = sample(request)
            found[run.job] = Found("an", numbers, Told({}, arrays))
        runs = {
            name: [
                replace(run, found={**run.found, look.name: found[run.job]}) if run.job in found else run
                for run in jobs
            ]
            for name, jobs in runs.items()
        }
    return runs


def named(slug: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.slug == slug)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.slug)
def test_every_claim_has_jobs_and_a_picture_of_them(claim: Claim) -> None:
    """Judge and picture ask for no variant that has no job file, whatever the jobs measured."""
    files = {file.stem: file for file in (HERE / "jobs" / claim.folder).glob("*.yaml")}
    for file in files.values():
        document = job_file.parse_job(file.read_text(encoding="utf-8"), file.name)
        assert JobSpec.model_validate_json(json.dumps(document)).shape().run.total_steps > 0
    runs: Runs = {
        name: [
            replace(trained(Falling(1.0 + place), seed=seed), job=f"job_{1000 * place + seed:026}")
            for seed in claim.seeds
        ]
        for place, name in enumerate(files)
    }
    runs = shown(claim, runs)
    seen = claim.judge(runs)
    assert {len(row) for row in seen.table} <= {len(seen.table[0]) if seen.table else 0}
    if isinstance(claim.picture, PathOf | PicturesOf):
        assert set(claim.picture.variants) <= set(files)
    else:
        assert "no points yet" not in draw_picture(claim.picture(runs), Style())
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


class Asking:
    """A service of which an analysis can be asked, and which tells what it was asked."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.posted: list[Request] = []

    def analyze(self, request: Request) -> Job:
        self.posted.append(request)
        return Job(id=f"an_{len(self.posted)}", status="queued")

    def wait(self, analysis: str) -> Job:
        return Job(id=analysis, status=self.status, results={"of": analysis})


def about(name: str, *variants: str) -> Asked:
    """Asks about every job of the variants, and says how many looks came before it."""

    def ask(runs: Runs) -> Iterator[tuple[Trained, Request]]:
        for run in (run for variant in variants for run in runs[variant]):
            yield run, {"kind": "sharpness", "job": run.job, "seed": len(run.found)}

    return Asked(name, ask)


def test_looks_are_done_in_order_and_each_sees_those_before() -> None:
    client = Asking("succeeded")
    runs = {"one": [trained({}, seed=0), trained({}, seed=1)], "other": [trained({}, seed=2)]}
    found = looked(client, [about("first", "one"), about("second", "one", "other")], runs)  # type: ignore[arg-type]
    assert [(request["job"][-1], request["seed"]) for request in client.posted] == [
        ("0", 0), ("1", 0), ("0", 1), ("1", 1), ("2", 0),
    ]  # fmt: skip
    assert {request["priority"] for request in client.posted} == {100}
    assert found["one"][1].found["first"].numbers == {"of": "an_2"}
    assert found["other"][0].found.keys() == {"second"}
    assert not runs["one"][0].found
    claim = replace(named("many-minima"), looks=(about("second"),), jobs_of="elsewhere")
    assert counted(claim, found) == (0, 3)
    assert "the jobs of elsewhere, 3 analyses" in entry(claim, Seen("words", holds=True), 0, 3)


def test_an_analysis_that_fails_ends_it_all() -> None:
    with pytest.raises(RuntimeError, match="an_1 ended as failed"):
        looked(Asking("failed"), [about("look", "one")], {"one": [trained({})]})  # type: ignore[arg-type]


def test_the_service_draws_a_picture_for_each_variant() -> None:
    claim = named("surfaces-shift")
    found = {name: [replace(trained({}), found={"plane": Found(name, {}, Told({}))})] for name in ("small", "full")}
    assert claim.pictures() == ["surfaces-shift-small", "surfaces-shift-full"]
    assert draw_pictures(Asking("succeeded"), claim, found) == [  # type: ignore[arg-type]
        "<svg>small shift.svg</svg>",
        "<svg>full shift.svg</svg>",
    ]
    text = entry(claim, Seen("words", holds=True), 0)
    assert all(f"(pictures/{name}.svg)" in text for name in claim.pictures())
    assert named("connected-minima").pictures() == ["connected-minima"]


def sharp(variants: Mapping[str, float], losses: Sequence[float] = (0.02, 0.0201, 0.0199)) -> Runs:
    """One seed, whose variants are as sharp as said by every measure."""
    rows = [{"value": value} for value in variants.values()]
    numbers = {
        "measures": {name: {"rows": rows} for name in ("lambda_max", "trace", "filter_noise")},
        "subjects": [{"train_loss": loss} for loss in losses],
    }
    first, *others = variants
    run = replace(trained({}), found={"sharpness": Found("an", numbers, Told({}))})
    return {first: [run], **{name: [trained({})] for name in others}}


@pytest.mark.parametrize(
    ("slug", "values", "holds"),
    [
        ("batch-and-flatness", (1, 2, 0.5), True),
        ("batch-and-flatness", (2, 1, 0.5), False),
        ("rate-and-flatness", (1, 2, 0.5), True),
        ("rate-and-flatness", (1, 2, 1.5), False),
    ],
)
def test_flatter_is_lower_by_every_measure(slug: str, values: Sequence[float], holds: bool) -> None:
    assert named(slug).judge(sharp(dict(zip(BATCHES, values, strict=True)))).holds is holds


def test_sharpness_at_unequal_loss_is_no_evidence() -> None:
    runs = sharp(dict(zip(BATCHES, (1, 2, 0.5), strict=True)), (0.02, 0.03, 0.02))
    assert not named("batch-and-flatness").judge(runs).holds


@pytest.mark.parametrize(("values", "holds"), [((3, 2, 1), True), ((3, 1, 2), False)])
def test_sam_is_flatter_in_the_order_of_rho(values: Sequence[float], holds: bool) -> None:
    assert (
        named("sam-flatter").judge(sharp(dict(zip(("plain", "rho-0.05", "rho-0.2"), values, strict=True)))).holds
        is holds
    )


def test_swa_is_flatter_only_in_the_mean() -> None:
    """Runs of 1 against 2 and of 4 against 3.5: not in every run, and in the mean, 2.5 against 2.75."""
    names = ("swa", "decayed", "last")
    both = [sharp(dict(zip(names, values, strict=True)))["swa"][0] for values in ((1, 2, 9), (4, 3.5, 9))]
    judge = named("swa-flatter").judge
    assert judge({"swa": both, "clean-swa": both}).holds
    assert not judge({"swa": both[1:], "clean-swa": both[1:]}).holds


def test_the_checkpoint_of_the_nearest_train_loss_is_taken() -> None:
    path = [{"step": step, "train": {"loss": loss}} for step, loss in ((1, 0.1), (2, 0.023), (3, 0.018), (4, 0.01))]
    run = replace(trained({}), found={"ways": Found("an", {"path": path}, Told({}))})
    assert matched(run)["step"] == 3


@pytest.mark.parametrize(("height", "holds"), [(0.6, True), (0.05, False)])
def test_only_what_a_barrier_parts_can_be_connected(height: float, holds: bool) -> None:
    numbers = {kind: SAMPLES[kind](height=height)[0] for kind in ("interpolation", "connect")}
    found = {
        "line": Found("an", numbers["interpolation"], Told({})),
        "curve": Found("an", numbers["connect"], Told({})),
    }
    runs = {"small": [replace(trained({}), found=found), trained({}, seed=1)]}
    assert named("connected-minima").judge(runs).holds is holds


def raised(least: float, most: float) -> Found:
    return Found(
        "an", {"centre": {"train": {"loss": 1.0}}}, Told({}, {"train.loss": np.array([least, 0.0, 1.0, 0.0, most])})
    )


def test_a_rise_is_from_the_middle_to_both_ends() -> None:
    assert rise(raised(2.0, 5.0)) == pytest.approx(2.5)


@pytest.mark.parametrize(("filtered", "holds"), [(2.0, True), (6.0, False)])
def test_normalised_profiles_have_to_contradict_raw_ones(filtered: float, holds: bool) -> None:
    plain = {"none": raised(2.0, 2.0), "filter": raised(5.0, 5.0)}
    decayed = {"none": raised(3.0, 3.0), "filter": raised(filtered, filtered)}
    jobs: dict[str, Callable[[], Trained]] = {
        "": lambda: replace(trained({}), found=plain),
        "-decay": lambda: replace(trained({}), found=decayed),
    }
    runs = {f"{batch}{name}": [made()] for batch in ("small", "large") for name, made in jobs.items()}
    assert named("filter-normalisation").judge(runs).holds is holds


def plane(own: float, lowest: float) -> Trained:
    surface = {"train": {"at": [0.0, 0.0]}, "test": {"lowest": lowest, "at": [0.3, 0.4]}}
    numbers = {"centre": {"train": {"loss": 0.02}, "test": {"loss": own}}, "surface": surface}
    return replace(trained({}), found={"plane": Found("an", numbers, Told({}))})


@pytest.mark.parametrize(("flat", "holds"), [(0.16, True), (0.11, False)])
def test_a_displacement_costs_what_the_lowest_point_would_save(flat: float, holds: bool) -> None:
    """0.2 - 0.16 = 0.04 or 0.2 - 0.11 = 0.09, against 0.2 - 0.14 = 0.06, in each of five runs: 1 / 32 by chance."""
    seen = named("surfaces-shift").judge({"small": [plane(0.2, flat)] * 5, "full": [plane(0.2, 0.14)] * 5})
    assert seen.holds is holds
    assert seen.table[2] == ("full batch", "0.180", "0.0600", "0.50")


@pytest.mark.parametrize(("stray", "holds"), [(0.0, True), (0.01, False)])
def test_both_ways_to_average_have_to_agree_with_the_job(stray: float, holds: bool) -> None:
    numbers = {"average": {"test": {"loss": 0.5 + stray}}, "ensemble": {"test": {"loss": 0.45}}}
    run = trained({}, average={"loss": 0.5}, ensemble={"loss": 0.45})
    runs = {"average": [replace(run, found={"average": Found("an", numbers, Told({}))})]}
    assert named("weights-or-predictions").judge(runs).holds is holds
