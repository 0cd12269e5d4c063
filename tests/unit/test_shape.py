"""The sizes of a run, and where the facts that they follow from are looked up."""

import json
from typing import Any

import pytest

from core.errors import InvalidSpec
from core.recipe.data import Dataset, DataSpec
from core.recipe.data.resolved import ResolvedDataset
from core.recipe.duration import LONGEST, RunLength
from core.recipe.facts import DataFacts
from core.recipe.parse import parse_sized_job

JOB: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [8]},
    "data": {"name": "iris", "validation": 0.25, "test": 0.25},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "batch_size": 8,
    "epochs": 3,
}
UPLOADED: dict[str, Any] = {"data": {"name": "dataset", "dataset": "springs"}}
FOUND = ResolvedDataset(
    dataset="ds_springs",
    version="0" * 64,
    kind="arrays",
    examples=40,
    input_shape=(7,),
    task="regression",
    outputs=2,
    train=20,
    validation=12,
    test=8,
)


def look_up(data: DataSpec) -> DataSpec:
    return data.model_copy(update={"resolved": FOUND}) if isinstance(data, Dataset) else data


def body(**changes: Any) -> bytes:
    return json.dumps({**JOB, **changes}).encode()


def test_sizes_follow_from_the_facts_that_were_looked_up() -> None:
    """40 examples, of which 20 train, in batches of 8: 3 steps an epoch. A regression has its own loss and metrics."""
    spec, shape = parse_sized_job(body(**UPLOADED), look_up)
    facts = DataFacts(examples=40, input_shape=(7,), task="regression", outputs=2)
    assert (shape.facts, shape.batch, shape.examples_per_epoch) == (facts, 8, 20)
    assert (shape.split.train, shape.split.validation, shape.split.test) == (20, 12, 8)
    assert shape.run == RunLength(steps_per_epoch=3, total_steps=9)
    assert (spec.loss, spec.metrics) == ("mse", ("mae", "r2"))


def test_checks_go_by_them_too() -> None:
    for changes, pointer in (({"batch_size": 21}, "/batch_size"), ({"loss": "cross_entropy"}, "/loss")):
        with pytest.raises(InvalidSpec) as caught:
            parse_sized_job(body(**UPLOADED, **changes), look_up)
        assert [each.pointer for each in caught.value.errors] == [pointer]
        parse_sized_job(body(**changes), look_up)  # of iris 75 train examples in three classes


@pytest.mark.parametrize(
    ("changes", "batch", "seen", "run"),
    [
        ({}, 8, 75, RunLength(10, 30)),
        ({"drop_last": True}, 8, 72, RunLength(9, 27)),
        ({"accumulate": 4}, 8, 75, RunLength(3, 9)),
        ({"batch_size": "full"}, 75, 75, RunLength(1, 3)),
        ({"steps": 7}, 8, 75, RunLength(10, 7)),
        ({"epochs": None, "seconds": 9.0}, 8, 75, RunLength(10, LONGEST, bounded=False)),
    ],
)
def test_sizes_of_a_built_in_dataset(changes: dict[str, Any], batch: int, seen: int, run: RunLength) -> None:
    """Of 150 examples 45 validate, 30 test and 75 train."""
    spec, shape = parse_sized_job(body(data={"name": "iris", "validation": 0.3, "test": 0.2}, **changes))
    assert (shape.batch, shape.examples_per_epoch, shape.run) == (batch, seen, run)
    assert spec.shape() == shape
