"""A run that is interrupted computes what an undisturbed one computes: every bit, every point, no step twice."""

import math
import random
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.engine.events import CheckpointWritten, Ended, StopRequest
from core.engine.liveness import Piece
from core.recipe.catalog import component_classes
from core.recipe.data import DataSpec
from core.recipe.spec import JobSpec
from core.recipe.stopping import StopReason
from tests.train.covering import ENDINGS, Case, cases, fields_of
from tests.train.recipes import MLP, RECIPES
from tests.train.runs import Train, Watcher, digests, job, trainer

STOPS = 50
FINISHED = set(get_args(StopReason)) - {"cancelled", "non_finite"}  # what leaves a last checkpoint
CASES = cases()
KINDS = ("swa", "ema", "best", "cycle_end", "snapshot")


class Counting(Watcher):
    """Its clock has moved by a second whenever a gradient is begun."""

    gradients = 0

    def clock(self) -> float:
        return float(self.gradients)

    def count(self, piece: Piece) -> None:
        self.gradients += piece == "step"


def counting(stop_after: int, request: StopRequest = "checkpoint") -> Counting:
    watcher = Counting(stop_after, request)
    watcher.report_alive = watcher.count
    return watcher


@pytest.fixture(scope="module")
def bad_data(tmp_path_factory: pytest.TempPathFactory, datasets: Callable[[DataSpec], Path]) -> Path:
    """Examples one of which has a squared error that no float holds; a run meets it after some steps."""
    folder, numbers = tmp_path_factory.mktemp("bad"), np.random.default_rng(0)
    spec, once = job(**ENDINGS["non_finite"], epochs=1), trainer(folder, datasets)
    shapes = {name: each.shape for name, each in load_file(datasets(spec.data)).items()}
    good = {name: numbers.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for example in range(len(good["inputs"])):
        inputs = good["inputs"].copy()
        inputs[example] = 1e30
        save_file({**good, "inputs": inputs}, path := folder / f"{example}.safetensors")
        ending, watcher = once(spec, dataset=path)
        met = [step for step, loss in watcher.series().get("train.loss", []) if not math.isfinite(loss)]
        if ending.stop_reason == "non_finite" and met and met[0] >= 4:
            return path
    raise AssertionError("the example is in no batch")


def interrupted(
    run: Callable[..., tuple[Ended, Watcher]], stops: list[int], cancel: int
) -> tuple[Ended, list[Watcher]]:
    """The same run in pieces that end after these steps; the last one is cancelled after `cancel` steps, if not 0."""
    pieces: list[Watcher] = []
    last: CheckpointWritten | None = None
    for before, stop in zip([0, *stops], stops, strict=False):
        ended, piece = run(counting(stop - before), last)
        assert (ended.outcome, ended.stop_reason) == ("stopped", None)
        pieces.append(piece)
        last = piece.checkpoints()[stop]
    ended, piece = run(counting(max(0, cancel - stops[-1]), "cancel"), last)
    return ended, [*pieces, piece]


def newest(watchers: list[Watcher], kind: str) -> tuple[int, dict[str, str]] | None:
    """Step and digests of the last checkpoint of its kind."""
    written = list(chain.from_iterable(watcher.checkpoints(kind).items() for watcher in watchers))
    return max(((step, digests(each)) for step, each in written), key=lambda found: found[0], default=None)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_restoring_is_going_on(run: Train, bad_data: Path, case: Case) -> None:
    """Interrupted at two steps, a run of any recipe has the bits, the points and the end of an undisturbed one."""
    fields = fields_of(case)
    reason = reason_of(case, fields)
    cancel = 9 if reason == "cancelled" else 0
    options = {"dataset": bad_data} if reason == "non_finite" else {}
    spec = job(epochs=None, **fields)

    def once(watcher: Counting, resume: CheckpointWritten | None, **more: Any) -> tuple[Ended, Watcher]:
        return run(spec, watcher, resume, clock=watcher.clock, **options, **more)

    each_step = {"checkpoint_seconds": 0.0} if case.averaging == "together" else {}
    ending, whole = once(counting(cancel, "cancel"), None, **each_step)
    assert ending.stop_reason == reason
    stops = sorted(case.dice().sample(range(1, ending.progress["step"]), 2))
    again, pieces = interrupted(once, stops, cancel)
    assert (again.stop_reason, again.results, again.error) == (reason, ending.results, ending.error)
    assert again.progress["step"] == ending.progress["step"]
    assert repr(sorted(joined(pieces).items())) == repr(sorted(whole.series().items()))  # nan is not equal to nan
    for kind in KINDS:
        assert newest(pieces, kind) == newest([whole], kind), kind
    if reason in FINISHED:
        assert newest(pieces, "last") == newest([whole], "last")
        last = ending.progress["step"]
        assert pieces[-1].checkpoints()[last].manifest["digest"] == whole.checkpoints()[last].manifest["digest"]
    for step, written in pieces[1].checkpoints().items() if each_step else ():
        assert digests(written) == digests(whole.checkpoints()[step])


def reason_of(case: Case, fields: dict[str, Any]) -> StopReason:
    """Why the run ends: as the case asks, unless its optimizer or its schedule does not allow that."""
    impossible = {"stop_lr": "stop_lr" not in fields, "non_finite": fields["batch_size"] == "full"}
    return "completed" if impossible.get(case.ending) else case.ending


def joined(pieces: list[Watcher]) -> dict[str, list[tuple[int, float]]]:
    """Every series over all pieces; a step that came twice would be in there twice."""
    found: dict[str, list[tuple[int, float]]] = {}
    for piece in pieces:
        for name, points in piece.series().items():
            found.setdefault(name, []).extend(points)
    return found


def test_every_choice_is_among_the_cases() -> None:
    """What a recipe refuses is left out, but each member of each kind is in some job as asked for."""
    found = [(case, fields_of(case)) for case in CASES]
    assert {fields["optimizer"]["name"] for _, fields in found} == set(component_classes("optimizers"))
    assert {fields.get("schedule", {}).get("name") for _, fields in found} >= set(component_classes("schedules"))
    averages = {"swag" if "swag" in fields["swa"] else "swa" for _, fields in found if "swa" in fields}
    averages |= {fields["ensemble"]["method"] for _, fields in found if "ensemble" in fields}
    assert averages | {"ema" for _, fields in found if "ema" in fields} == set(component_classes("averaging"))
    assert {reason_of(case, fields) for case, fields in found} == set(get_args(StopReason))


@pytest.mark.slow
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

    series = joined(pieces)
    assert series == reference.series()
    assert all(len({step for step, _ in points}) == len(points) for points in series.values())
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
