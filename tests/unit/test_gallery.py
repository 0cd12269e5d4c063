"""The gallery's job files are jobs, its claims find them, and its judges can say no."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from basin import jobfile
from core.recipe.spec import JobSpec
from gallery.claim import Claim, Trained, first_at_most, share
from gallery.run import CLAIMS, HERE, entry, verdict


@dataclass(frozen=True)
class Told:
    """A source of curves that are the same for every job."""

    curves: dict[str, tuple[list[float], list[float]]]

    def curve(self, job: str, series: str) -> tuple[list[float], list[float]]:
        return self.curves[series]


def trained(curves: dict[str, list[float]], results: dict[str, Any] | None = None) -> Trained:
    steps = {name: (list(map(float, range(len(values)))), values) for name, values in curves.items()}
    return Trained("job", 0, "completed", results or {}, Told(steps))


def named(slug: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.slug == slug)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.slug)
def test_every_claim_has_jobs_and_a_picture_of_them(claim: Claim) -> None:
    files = {file.stem: file for file in (HERE / "jobs" / claim.slug).glob("*.yaml")}
    assert set(claim.picture.variants) <= set(files)
    assert claim.text.count(". ") == 2
    for file in files.values():
        document = jobfile.job(file.read_text(encoding="utf-8"), file.name)
        assert JobSpec.model_validate_json(json.dumps(document)).run_length().total_steps > 0


def test_no_job_file_is_left_over() -> None:
    assert {folder.name for folder in (HERE / "jobs").iterdir()} == {claim.slug for claim in CLAIMS}


@pytest.mark.parametrize(("full", "holds"), [(0.9143, True), (-1.0679, False)])
def test_a_judge_can_say_no(full: float, holds: bool) -> None:
    """A full batch that had left the local minimum would refute the claim, whatever one example does."""
    runs = {
        "one-example": [trained({"point.x": [1.2, -1.07]})] * 20,
        "full": [trained({"point.x": [1.2, full]})] * 20,
    }
    assert named("local-minimum").judge(runs).holds is holds


def test_epochs_are_counted_from_one() -> None:
    assert first_at_most([0.5, 0.2, 0.1], 0.2) == 2
    assert first_at_most([0.5], 0.2) is None
    runs = {name: [trained({"train.loss": losses})] for name, losses in (
        ("batch-8", [0.1]), ("batch-128", [0.5, 0.2]), ("full", [0.9, 0.5, 0.3, 0.1])
    )}  # fmt: skip
    seen = named("epochs-by-batch").judge(runs)
    assert seen.holds
    assert "full: 4-4 epochs" in seen.words
    assert not named("epochs-by-batch").judge({**runs, "batch-8": runs["full"]}).holds


def test_a_robust_claim_fails_aloud_and_a_fragile_one_in_its_own_words() -> None:
    robust, fragile = named("local-minimum"), named("swa-against-decay")
    no = named("epochs-by-batch").judge({
        name: [trained({"train.loss": [1.0]})] for name in ("batch-8", "batch-128", "full")
    })  # fmt: skip
    assert (verdict(robust, no), verdict(fragile, no)) == ("**fails**", "not at this scale")
    assert "not asserted" in entry(fragile, no, 2)
    assert share([True, False]) == "1/2"
