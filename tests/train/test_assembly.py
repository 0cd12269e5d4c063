"""Landscapes that are computed in parts, and put together: the bits of one that was computed in one go."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.engine.analysis import grid
from core.engine.analysis.assembly import copy_computed_cells
from core.engine.events import CheckpointWritten
from core.engine.failure import EngineError
from core.recipe.analyses.assembly import Assembly
from core.recipe.spec import JobSpec
from tests.support.specs import analysis_of
from tests.train.looks import Look, Looked, kept, looked, reading
from tests.train.runs import Train, Watcher, job
from worker.pictures import render_pictures

pytestmark = pytest.mark.usefixtures("one_thread")

Trained = tuple[JobSpec, CheckpointWritten]
Join = Callable[..., Looked]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most seven points each, so that small grids have many."""
    monkeypatch.setattr(grid, "MOST_POINTS", 7)


@pytest.fixture
def join(tmp_path: Path) -> Join:
    """Put results together."""

    def one(parts: Sequence[Looked], watcher: Watcher | None = None, **fields: Any) -> Looked:
        spec = analysis_of({"kind": "assembly", "analyses": [f"an_{n:026d}" for n in range(len(parts))]})
        readings = tuple(reading(each, f"result {number}") for number, each in enumerate(parts))
        return looked(
            spec, tmp_path / f"join-{fields.pop('name', 0)}", watcher or Watcher(), readings=readings, **fields
        )

    return one


def trained(run: Train, seed: int = 0) -> Trained:
    made = job(epochs=1, seed=seed)
    return made, run(made)[1].checkpoints()[made.shape().run.total_steps]


def shared(look: Look, subjects: Sequence[Trained], of: int, **fields: Any) -> list[Looked]:
    parts = [{"number": number, "of": of} for number in range(1, of + 1)]
    return [look(subjects, kind="landscape", part=part, **fields) for part in parts]


def same(whole: Looked, joined: Looked) -> bool:
    """Every number, and every bit of every array."""
    assert whole.numbers == joined.numbers
    assert whole.arrays.keys() == joined.arrays.keys()
    return all(each.tobytes() == joined.arrays[name].tobytes() for name, each in whole.arrays.items())


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("counts", "fields"),
    [
        ((1, 4), {"steps": 9, "splits": ["train", "test"], "seed": 3}),
        ((1, 3), {"steps": 30, "dimensions": 1}),
        ((1, 2), {"steps": 4, "directions": "eigen", "examples": 20}),
        ((3, 2), {"steps": 4, "directions": "between"}),
        ((1, 5), {"steps": 5, "dimensions": 1}),
    ],
)
def test_parts_make_the_whole_to_the_bit(
    run: Train, look: Look, join: Join, counts: tuple[int, int], fields: dict[str, Any]
) -> None:
    """Of two dimensions and of one, of directions that weights give; also where there are more parts than tiles."""
    many, of = counts
    subjects = [trained(run, seed) for seed in range(many)]
    whole = look(subjects, kind="landscape", **fields)
    parts = shared(look, subjects, of, **fields)
    tiles = -(-whole.numbers["points"] // 7)
    assert [each.ended.progress["steps"] for each in parts] == [len(range(n, tiles, of)) for n in range(of)]
    assert {(each.ended.outcome, each.ended.progress["fraction"]) for each in parts} == {("succeeded", 1.0)}
    known = np.stack([np.isfinite(each.arrays["train.loss"]) for each in parts])
    assert (known.sum(0) == 1).all()
    assert [each.numbers["computed"] for each in parts] == [int(each.sum()) for each in known]
    assert [each.numbers["part"] for each in parts] == [{"number": n, "of": of} for n in range(1, of + 1)]
    assert whole.numbers["part"] is None
    joined = join(parts[::-1])
    assert joined.ended.outcome == "succeeded"
    assert not joined.watcher.logs()
    assert same(whole, joined)


@pytest.mark.usefixtures("small_tiles")
def test_pictures_are_those_of_the_landscape(run: Train, look: Look, join: Join) -> None:
    subjects = [trained(run)]
    whole = look(subjects, kind="landscape", dimensions=1, steps=9, draw=render_pictures)
    joined = join(shared(look, subjects, 2, dimensions=1, steps=9), draw=render_pictures)
    digests = [
        {name: file["sha256"] for name, file in result.files.items() if name.endswith((".svg", ".png"))}
        for each in (whole, joined)
        for result in each.watcher.checkpoints("result").values()
    ]
    assert digests[0] == digests[1]
    assert digests[0].keys() == {"profile.svg", "profile.png"}


@pytest.mark.usefixtures("small_tiles")
def test_a_part_and_an_assembly_go_on_where_they_were_stopped(run: Train, look: Look, join: Join) -> None:
    subjects = [trained(run)]
    whole = look(subjects, kind="landscape", steps=6)
    fields: dict[str, Any] = {"kind": "landscape", "steps": 6, "part": {"number": 1, "of": 2}}
    stopped = look(subjects, Watcher(stop_after=2), **fields)
    (written,) = stopped.watcher.checkpoints().values()
    first = look(subjects, resume=kept(written), **fields)
    assert first.watcher.start == 2
    second = look(subjects, **fields | {"part": {"number": 2, "of": 2}})
    halfway = join([first, second], Watcher(stop_after=1))
    assert halfway.ended.outcome == "stopped"
    (written,) = halfway.watcher.checkpoints().values()
    assert same(whole, join([first, second], resume=kept(written), name=1))


@pytest.mark.usefixtures("small_tiles")
def test_what_does_not_fit_together_is_told(run: Train, look: Look, join: Join, tmp_path: Path) -> None:
    subjects = [trained(run)]
    first, second = shared(look, subjects, 2, steps=4)
    other = look([trained(run, 1)], kind="landscape", steps=4, part={"number": 2, "of": 2})
    fields = {"kind": "landscape", "steps": 4, "seed": 1, "part": {"number": 2, "of": 2}}
    for number, odd in enumerate((other, look(subjects, **fields))):
        ended = join([first, odd], name=number).ended
        assert ended.error is not None
        assert "result 1 has other directions than result 0" in ended.error["message"]
    twice = join([first, first], name=2).ended
    assert twice.error is not None
    assert "points of another part" in twice.error["message"]
    (written,) = second.watcher.checkpoints("result").values()
    Path(written.folder, "result.npz").write_bytes(b"PK cut short")
    ended = join([first, second], name=3).ended
    assert ended.error is not None
    assert ended.error["message"].startswith("the arrays of result 1 cannot be read")
    Path(written.folder, "result.npz").write_bytes(_pickled(tmp_path / "objects.npz"))
    ended = join([first, second], name=4).ended
    assert ended.error is not None
    assert "allow_pickle=False" in ended.error["message"]


def _pickled(path: Path) -> bytes:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    return path.read_bytes()


@pytest.mark.usefixtures("small_tiles")
def test_parts_that_differ_by_rounding_are_taken_with_a_warning(run: Train, look: Look, join: Join) -> None:
    subjects = [trained(run)]
    first, second = shared(look, subjects, 2, steps=4)
    (written,) = second.watcher.checkpoints("result").values()
    eval_weights = {**second.arrays, "norms": second.arrays["norms"] * (1 + 1e-7)}
    np.savez(Path(written.folder, "result.npz"), **eval_weights)
    joined = join([first, replace(second, arrays=eval_weights)])
    assert joined.ended.outcome == "succeeded"
    (said,) = joined.watcher.logs()
    assert (said.level, said.message[:23]) == ("warning", "result 1 was computed w")
    np.testing.assert_array_equal(joined.arrays["norms"], first.arrays["norms"])


def test_a_loss_that_is_no_number_is_known_all_the_same() -> None:
    """It may come with another sign; it stays what it is to the bit, and nobody writes over it."""
    blank = torch.full((3,), math.nan, dtype=torch.float64)
    part = blank.clone()
    part[1] = -torch.tensor(math.nan, dtype=torch.float64)
    whole = blank.clone()
    copy_computed_cells(whole, part, "a part")
    assert whole.view(torch.int64).tolist() == part.view(torch.int64).tolist()
    part[1] = 1.0
    with pytest.raises(EngineError, match="points of another part"):
        copy_computed_cells(whole, part, "another")


def landscape(number: int | None = 1, of: int = 2, **fields: Any) -> Any:
    part = {"part": {"number": number, "of": of}} if number else {}
    return analysis_of({"kind": "landscape", "job": f"job_{0:026d}", **part, **fields})


@pytest.mark.parametrize(
    ("parts", "pointer", "says"),
    [
        ([landscape(1), landscape(2, name="b", priority=3, metadata={"a": "b"})], None, ""),
        ([landscape(2), landscape(1, job=f"job_{1:026d}")], None, ""),  # where they looked is known from elsewhere
        ([landscape(1), landscape(None)], "/analyses/1", "not a part of a landscape"),
        ([landscape(1), analysis_of({"kind": "sharpness", "job": f"job_{0:026d}"})], "/analyses/1", "sharpness"),
        ([landscape(1), landscape(2, seed=1, steps=3)], "/analyses/1", "its seed, steps differ"),
        ([landscape(1), landscape(2, of=3)], "/analyses/1", "one of 3 parts"),
        ([landscape(1), landscape(1)], "/analyses/1", "part 1 is given 2 times"),
        ([landscape(1, of=4), landscape(3, of=4)], "/analyses", "of 4 parts 2, 4 are missing"),
    ],
)
def test_which_parts_make_a_whole(parts: list[Any], pointer: str | None, says: str) -> None:
    spec = analysis_of({"kind": "assembly", "analyses": [f"an_{n:026d}" for n in range(len(parts))]})
    assert isinstance(spec, Assembly)
    found = list(spec.problems(parts))
    if pointer is None:
        assert found == []
    else:
        assert pointer == found[0].pointer
        assert says in found[0].message
        assert found[0].hint
