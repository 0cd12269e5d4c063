"""A run that is interrupted computes what an undisturbed one computes: every bit, every point, no step twice."""

import random
from typing import Any

import pytest

from core.engine.events import CheckpointWritten
from core.recipe.catalog import components
from core.recipe.spec import JobSpec
from tests.train.recipes import FULL, MLP, OPTIONS, RECIPES
from tests.train.runs import Train, Watcher, digests, job

STOPS = 50


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in RECIPES.items()])
def test_resume_at_random_steps_is_bit_exact(run: Train, spec: JobSpec) -> None:
    # The reference writes a checkpoint after every single step, so each stop below has something to be equal to.
    ending, reference = run(spec, checkpoint_seconds=0.0)
    every_step = reference.checkpoints()
    assert sorted(every_step) == list(range(1, 81))
    stops = sorted(random.Random(spec.model_dump_json()).sample(range(1, 80), STOPS))  # others for each recipe

    pieces: list[Watcher] = []
    last: CheckpointWritten | None = None
    for before, stop in zip([0, *stops], [*stops, 0], strict=True):
        ended, piece = run(spec, Watcher(stop_after=stop - before), resume=last)
        pieces.append(piece)
        if stop:
            assert ended.outcome == "stopped"
            last = piece.checkpoints()[stop]
            assert digests(last) == digests(every_step[stop])
    assert [piece.start for piece in pieces] == [0, *stops]

    joined: dict[str, list[tuple[int, float]]] = {}
    for piece in pieces:
        for name, points in piece.series().items():
            joined.setdefault(name, []).extend(points)
    assert joined == reference.series()
    assert all(len({step for step, _ in points}) == len(points) for points in joined.values())
    final = pieces[-1]
    assert digests(final.checkpoints()[80]) == digests(every_step[80])
    for kind in ("swa", "ema", "best", "snapshot"):
        kept = [{at: digests(each) for at, each in seen.checkpoints(kind).items()} for seen in (final, reference)]
        assert kept[0].items() <= kept[1].items()
        assert bool(kept[0]) == (kind == "swa" or bool(spec.early_stopping))
    assert final.checkpoints()[80].manifest["digest"] == every_step[80].manifest["digest"]
    assert (ended.outcome, ended.results) == ("succeeded", ending.results)
    others = {"best", "ema", "swag", "ensemble", "average", "member_1", "member_2", "member_3"}
    assert set(ended.results) == {"base", "swa"} | (others if spec.early_stopping else set())


@pytest.mark.parametrize("name", sorted(set(components("optimizers")) - {"adam"}))
def test_every_optimizer_resumes(run: Train, name: str) -> None:
    """At any step, with weights that know no decay, batch norm, dropout and SAM where it may be."""
    kind: Any = components("optimizers")[name]
    spec = job(
        model=MLP,
        optimizer={"name": name, "lr": 0.01, **OPTIONS.get(name, {})},
        no_decay=["bias"],
        sam=None if kind.closure else {"interval": 2},
        **(FULL if kind.full_batch else {}),
    )
    stop = random.Random(name).randrange(1, 24)
    ending, whole = run(spec)
    _, first = run(spec, Watcher(stop_after=stop))
    again, second = run(spec, resume=first.checkpoints()[stop])
    assert digests(second.checkpoints()[24]) == digests(whole.checkpoints()[24])
    assert first.series()["train.loss"] + second.series()["train.loss"] == whole.series()["train.loss"]
    assert again.results == ending.results


def test_full_batch_and_regression_resume(run: Train) -> None:
    spec = job(data={"name": "diabetes"}, batch_size="full", epochs=None, steps=20, log_every=4)
    _, whole = run(spec)
    _, first = run(spec, Watcher(stop_after=6))
    _, second = run(spec, resume=first.checkpoints()[6])
    assert digests(second.checkpoints()[20]) == digests(whole.checkpoints()[20])
    assert first.series()["train.loss"] + second.series()["train.loss"] == whole.series()["train.loss"]


def test_checkpoints_and_evaluations_leave_no_trace(run: Train) -> None:
    quiet = job(model=MLP, evaluate={"every": "1run"}, swa=True)
    busy = job(model=MLP, evaluate={"every": "1st"}, checkpoints={"every": "1st"}, swa=True)
    (_, one), (_, other) = run(quiet), run(busy)
    assert one.series()["train.loss"] == other.series()["train.loss"]
    assert digests(one.checkpoints()[24]) == digests(other.checkpoints()[24])
    assert digests(one.checkpoints("swa")[24]) == digests(other.checkpoints("swa")[24])


def test_a_finished_run_ends_at_once_when_resumed(run: Train) -> None:
    ending, watcher = run(job(swa=True))
    again, second = run(job(swa=True), resume=watcher.checkpoints()[24])
    assert again.results == ending.results
    assert second.series() == {}
    assert second.checkpoints() == {}


def test_a_stop_at_the_last_step_leaves_only_the_test(run: Train) -> None:
    spec = job(checkpoints={"every": "8st"})
    ending, whole = run(spec)
    stopped, first = run(spec, Watcher(stop_after=24))
    assert stopped.outcome == "stopped"
    again, second = run(spec, resume=first.checkpoints()[24])
    assert second.checkpoints()[24].manifest["digest"] == whole.checkpoints()[24].manifest["digest"]
    assert again.results == ending.results
    assert set(second.series()) == {"test.loss", "test.accuracy"}
    assert digests(second.checkpoints()[24]) == digests(whole.checkpoints()[24])


def test_a_resume_elsewhere_says_that_it_is_approximate(run: Train) -> None:
    _, first = run(job(), Watcher(stop_after=5))
    checkpoint = first.checkpoints()[5]
    _, exact = run(job(), resume=checkpoint)
    _, other = run(job(), resume=checkpoint, plan={"threads": 2})
    fidelity = [watcher.events[0].environment["resume"]["fidelity"] for watcher in (exact, other)]  # type: ignore[union-attr]
    assert fidelity == ["exact", "approximate"]
    assert exact.logs() == []
    assert ["threads: 1 before, 2 now" in log.message for log in other.logs()] == [True]
