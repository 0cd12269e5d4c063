"""Images, arrays and text as data of a job, and what a job with uploaded data is once it is stored."""

import json
from typing import Any

import pytest

from core.errors import InvalidSpec
from core.recipe.branch import fork_spec
from core.recipe.checks.spec import warnings
from core.recipe.data import Dataset
from core.recipe.data.iris import Iris
from core.recipe.data.manifest import DatasetManifest, TensorShape
from core.recipe.data.materialise import dataset_path
from core.recipe.facts import DataFacts
from core.recipe.parse import parse_job
from core.recipe.spec import JobSpec
from core.recipe.stored import read_job
from tests.support.manifests import ROWS, arrays, images, look_up, resolve, text

FLOATS = TensorShape(dtype="F32", shape=(ROWS, 2))
LABELS = TensorShape(dtype="I64", shape=(ROWS,))
BIRDS: dict[str, Any] = {"name": "dataset", "dataset": "birds", "target": "species"}
ONE_HOT: dict[str, Any] = {"encode": "one_hot"}


def job(data: dict[str, Any], model: str = "mlp", **changes: Any) -> bytes:
    body = {"model": {"name": model}, "data": data, "optimizer": {"name": "sgd"}, "batch_size": 8, "epochs": 2}
    return json.dumps(body | changes).encode()


def problems_of(body: bytes) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpec) as caught:
        parse_job(body, look_up)
    return [(each.pointer, f"{each.message}; {each.hint}") for each in caught.value.errors]


@pytest.mark.parametrize(
    ("manifest", "fields", "facts"),
    [
        (images((1, 28, 28)), {}, DataFacts(60, (1, 28, 28), "classification", 2)),
        (arrays(FLOATS), {}, DataFacts(60, (7,), "regression", 2)),
        (arrays(TensorShape(dtype="F32", shape=(ROWS,)), (1, 5)), {}, DataFacts(60, (1, 5), "regression", 1)),
        (arrays(LABELS, class_counts=(20, 30, 10)), {}, DataFacts(60, (7,), "classification", 3)),
        (text(), {"context": 100}, DataFacts(10, (100,), "language_model", 256, vocabulary=256, context=100)),
    ],
)
def test_facts(manifest: DatasetManifest, fields: dict[str, Any], facts: DataFacts) -> None:
    assert resolve(manifest, **fields).facts() == facts


@pytest.mark.parametrize(
    ("manifest", "fields", "pointer", "message"),
    [
        (images(counts={}), {}, "/data/dataset", "the images have no classes"),
        (images(counts={"cat": 9}), {}, "/data/dataset", 'every row has the same class "cat"'),
        (images(counts={"cat": 9, "dog": 1}), {}, "/data/split", 'the class "dog" has one row'),
        (images(counts={f"c{index}": 2 for index in range(10_001)}), {}, "/data/dataset", "at most 10,000 are allowed"),
        (images(), {"task": "regression"}, "/data/task", "images have classes, not numbers"),
        (images(), {"task": "language_model"}, "/data/task", "images are no text"),
        (images(), {"target": "x"}, "/data/target", "it has no meaning for images"),
        (images(), {"numbers": {}}, "/data/numbers", "it has no meaning for images"),
        (images(), {"categories": {}}, "/data/categories", "it has no meaning for images"),
        (images(), {"features": {"exclude": ["x"]}}, "/data/features", "it has no meaning for images"),
        (images((3, 8, 9)), {"augment": [{"op": "hflip"}, {"op": "rotate90"}]}, "/data/augment/1/op", "8 by 9 pixels"),
        (images((1, 8, 8)), {"augment": [{"op": "saturation"}]}, "/data/augment/0/op", "the images have no colour"),
        (arrays(None), {}, "/data/dataset", "the arrays have no targets"),
        (arrays(FLOATS), {"task": "classification"}, "/data/task", "the targets are not whole numbers"),
        (arrays(FLOATS), {"augment": [{"op": "hflip"}]}, "/data/augment", "it has no meaning for arrays"),
        (arrays(LABELS, class_counts=(30, 30)), {"task": "regression"}, "/data/task", "the targets are classes"),
        (arrays(LABELS, class_counts=(60,)), {}, "/data/dataset", "every row has the same class"),
        (arrays(LABELS, class_counts=(1, 59)), {}, "/data/split", 'the class "0" has one row'),
        (text(), {}, "/data/context", "a text needs the number of tokens in one example"),
        (text(1001), {"context": 1001}, "/data/context", "has 1,001 tokens, and an example needs 1,002; use at most"),
        (text(), {"context": 8, "task": "classification"}, "/data/task", "no classes and no numbers"),
        (text(), {"context": 8, "tokenizer": {"bpe": 512}}, "/data/tokenizer", "the text was prepared as bytes"),
        (text(), {"context": 8, "target": "x"}, "/data/target", "it has no meaning for tokens"),
    ],
)
def test_refusals(manifest: DatasetManifest, fields: dict[str, Any], pointer: str, message: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        resolve(manifest, **fields)
    (problem,) = caught.value.errors
    assert problem.pointer == pointer
    assert message in f"{problem.message}; {problem.hint}"


def test_everything_out_of_place_is_named_at_once() -> None:
    with pytest.raises(InvalidSpec) as caught:
        resolve(images(), target="x", numbers={}, tokenizer="bytes")
    assert [each.pointer for each in caught.value.errors] == ["/data/target", "/data/numbers", "/data/tokenizer"]


def test_the_tokens_of_a_text() -> None:
    pairs = text().model_copy(update={"tokenizer": {"kind": "bpe", "vocabulary": 512}, "vocabulary": 512})
    assert resolve(pairs, context=8, tokenizer={"bpe": 512}).facts().outputs == 512
    for wrong in ("bytes", {"bpe": 300}):
        with pytest.raises(InvalidSpec) as caught:
            resolve(pairs, context=8, tokenizer=wrong)
        assert caught.value.errors[0].message == "the text was prepared as bpe with 512 tokens"
    assert resolve(text(), context=8, tokenizer="bytes").task == "language_model"


def test_no_model_takes_a_text_yet() -> None:
    data = {"name": "dataset", "dataset": "tale", "task": "language_model", "context": 16}
    for model in ("mlp", "logistic", "cnn"):
        assert problems_of(job(data, model)) == [
            ("/model/name", f"{model} takes no text; no model of this release does; None")
        ]


def test_only_a_model_that_embeds_takes_codes() -> None:
    assert parse_job(job(BIRDS), look_up).data.facts().cardinalities == (21,)
    for model in ("logistic", "cnn"):
        pointer, message = problems_of(job(BIRDS, model))[0]
        assert pointer == "/data/categories"
        assert '"categories": {"encode": "one_hot"}' in message
    assert parse_job(job(BIRDS | {"categories": ONE_HOT}, "logistic"), look_up).data.facts().cardinalities == ()


def test_what_a_request_says_of_the_dataset_is_ignored() -> None:
    """A job of its own, copied and changed, says what was so before; and anybody may say anything."""
    made = parse_job(job(BIRDS), look_up)
    assert isinstance(made.data, Dataset)
    assert made.data.dataset == "ds_birds"
    told = json.loads(made.data.model_dump_json())
    lies: list[Any] = ["?", 7, [], {}, told["resolved"] | {"outputs": 10**9}, told["resolved"] | {"kind": "odd"}]
    for lie in lies:
        assert parse_job(job(BIRDS | {"resolved": lie}), look_up) == made
    assert JobSpec.model_validate_json(made.model_dump_json()) == made
    again = parse_job(made.model_dump_json().encode(), look_up)
    assert again == made == made.resolved()
    assert again.model_dump_json() == made.model_dump_json()


@pytest.mark.parametrize(
    "data",
    [
        BIRDS,
        BIRDS | {"split": {"by": "column", "column": "part", "test": ["exam"]}, "features": {"exclude": ["ring"]}},
        BIRDS | {"split": {"by": "group", "column": "part"}, "numbers": {"scale": "quantile"}, "shuffle": "blocks"},
        {"name": "dataset", "dataset": "photos", "augment": [{"op": "crop"}, {"op": "cutmix"}, {"op": "randaugment"}]},
        {"name": "dataset", "dataset": "springs", "split": {"by": "tail"}},
    ],
)
def test_a_stored_job_comes_back_as_it_was(data: dict[str, Any]) -> None:
    made = parse_job(job(data), look_up)
    read = read_job(made.model_dump_json())
    assert read == made == read.resolved()
    assert read.shape() == made.shape()
    assert read.model_dump_json() == made.model_dump_json()


def test_a_dataset_that_was_not_looked_up_says_so() -> None:
    for ask in (Dataset(dataset="birds").facts, Dataset(dataset="birds").split):
        with pytest.raises(InvalidSpec) as caught:
            ask()
        assert caught.value.errors[0].pointer == "/data/dataset"
    with pytest.raises(InvalidSpec) as caught:
        parse_job(job(BIRDS))
    assert caught.value.errors[0].message == 'there is no dataset "birds" here'
    with pytest.raises(InvalidSpec):
        JobSpec.model_validate_json(job(BIRDS)).resolved()


def test_a_dataset_is_not_made_from_its_fields(tmp_path: Any) -> None:
    with pytest.raises(TypeError):
        dataset_path(Dataset(dataset="birds"), tmp_path)


def test_the_warnings_of_the_data_are_those_of_the_job() -> None:
    spec = parse_job(job(BIRDS), look_up)
    codes = {each.code: each.pointer for each in warnings(spec, spec.shape())}
    assert codes == {"text_left_out": "/data/features", "empty_left_out": "/data/features"}
    unjudged = BIRDS | {"split": {"by": "column", "column": "part", "test": ["exam"]}}
    spec = parse_job(job(unjudged), look_up)
    assert "no_validation" in {each.code for each in warnings(spec, spec.shape())}


def test_hints_for_the_fields_within() -> None:
    for data, pointer, hint in (
        ({"split": {"by": "group", "colum": "x", "column": "part"}}, "/data/split/colum", '"column"'),
        ({"split": {"by": "colum"}}, "/data/split/by", '"column"'),
        ({"augment": [{"op": "hflipp"}]}, "/data/augment/0/op", '"hflip"'),
        ({"numbers": {"scal": "none"}}, "/data/numbers/scal", '"scale"'),
        ({"features": {}}, "/data/features", "exclude"),
    ):
        (problem,) = problems_of(job(BIRDS | data))
        assert problem[0] == pointer
        assert hint in problem[1]


def test_built_in_data_is_as_before() -> None:
    asked = json.loads(job({"name": "iris"}))
    assert parse_job(json.dumps(asked).encode(), look_up) == parse_job(json.dumps(asked).encode())
    assert parse_job(json.dumps(asked).encode()).data == Iris()


def test_a_fork_keeps_its_data_without_a_look_up() -> None:
    parent = parse_job(job(BIRDS), look_up)
    assert fork_spec(parent, {"epochs": 5}, 1).data == parent.data
    told = json.loads(parent.data.model_dump_json())
    assert fork_spec(parent, {"data": told | {"resolved": None}}, 1).data == parent.data
    for changed in (told | {"split_seed": 1}, BIRDS, told | {"dataset": "ds_other"}):
        with pytest.raises(InvalidSpec) as caught:
            fork_spec(parent, {"data": changed}, 1)
        assert [each.pointer for each in caught.value.errors] == ["/changes/data"]
    with pytest.raises(InvalidSpec) as caught:
        fork_spec(parse_job(job({"name": "iris"})), {"data": BIRDS}, 1)
    assert [each.pointer for each in caught.value.errors] == ["/changes/data"]
