"""A table as data of a job: its inputs, its target, and every reason to refuse it, from a manifest written by hand."""

import json
import time
from typing import Any

import pytest

from core.errors import InvalidSpec
from core.recipe.data.manifest import ColumnFacts, DatasetManifest
from core.recipe.data.target import class_counts_of, classes_of, classes_of_codes, likely_target
from tests.support.manifests import COLUMNS, category, number, numbered, resolve, table

TABLE = table()
FEW: dict[str, Any] = {"target": "species", "features": {"include": ["weight"]}}


def refused(manifest: DatasetManifest, **fields: Any) -> list[tuple[str, str]]:
    """Pointer, and message with hint, of each problem."""
    with pytest.raises(InvalidSpec) as caught:
        resolve(manifest, **fields)
    return [(each.pointer, f"{each.message}; {each.hint}") for each in caught.value.errors]


def layout(manifest: DatasetManifest = TABLE, **fields: Any) -> list[tuple[str, str, int]]:
    found = resolve(manifest, **fields).resolved
    assert found is not None
    assert found.input_shape == (sum(feature.width for feature in found.features),)
    return [(each.column, each.form, each.width) for each in found.features]


def test_the_inputs_of_a_table_side_by_side() -> None:
    """Numbers and parts of dates, marks, one-hot, codes; `ring` has 20 values, and more than 16 are embedded."""
    assert layout(target="species") == [
        *(("length", "number", 1), ("weight", "number", 1), ("alive", "number", 1), ("seen", "number", 4)),
        *(("legs", "number", 1), ("sold", "number", 1)),
        *(("length", "missing", 1), ("seen", "missing", 1)),
        *(("island", "one_hot", 2), ("part", "one_hot", 3)),
        ("ring", "code", 1),
    ]
    found = resolve(TABLE, target="species").resolved
    assert found
    assert (found.input_shape, found.cardinalities) == ((17,), (21,))
    assert (found.task, found.outputs, found.examples) == ("classification", 3, 60)
    assert (found.train, found.validation, found.test) == (42, 6, 12)
    assert (found.kind, found.version, found.dataset) == ("table", TABLE.version(), "ds_0")


@pytest.mark.parametrize(
    ("categories", "rings", "cardinalities"),
    [
        ({}, ("code", 1), (21,)),
        ({"encode": "one_hot"}, ("one_hot", 20), ()),
        ({"encode": "embed"}, ("code", 1), (3, 21, 4)),
        ({"min_count": 3}, ("one_hot", 10), ()),
        ({"max_categories": 17}, ("code", 1), (18,)),
        ({"max_categories": 16}, ("one_hot", 16), ()),
        ({"min_count": 13}, None, ()),  # of ring nothing is kept, of island both values, of part one
    ],
)
def test_how_categories_are_encoded(
    categories: dict[str, Any], rings: tuple[str, int] | None, cardinalities: tuple[int, ...]
) -> None:
    found = resolve(TABLE, target="species", categories=categories).resolved
    assert found
    assert found.cardinalities == cardinalities
    forms = {each.column: (each.form, each.width) for each in found.features}
    assert forms.get("ring") == rings


def test_features_are_chosen() -> None:
    assert layout(**FEW) == [("weight", "number", 1)]
    chosen = {"include": ["ring", "weight", "island"]}  # in the order of the upload, whatever the order here
    assert [each[0] for each in layout(target="species", features=chosen)] == ["weight", "island", "ring"]
    spared = {each[0] for each in layout(target="species", features={"exclude": ["ring", "species"]})}
    assert spared == {"length", "weight", "alive", "seen", "island", "part", "legs", "sold"}


@pytest.mark.parametrize(
    "split", [{"by": "column", "column": "part", "test": ["exam"]}, {"by": "group", "column": "part"}]
)
def test_the_column_of_a_split_is_no_feature(split: dict[str, Any]) -> None:
    assert "part" not in {each[0] for each in layout(target="species", split=split)}
    found = refused(TABLE, target="species", split=split, features={"include": ["part"]})
    assert found == [("/data/features/include/0", '"part" decides the split; leave it out')]


@pytest.mark.parametrize(
    ("target", "task", "expected"),
    [
        ("species", None, ("classification", 3)),
        ("alive", None, ("classification", 2)),
        ("weight", None, ("regression", 1)),
        ("legs", None, ("regression", 1)),
        ("legs", "classification", ("classification", 2)),
        ("sold", None, ("classification", 2)),
        ("sold", "regression", ("regression", 1)),
    ],
)
def test_the_task_follows_from_the_target(target: str, task: str | None, expected: tuple[str, int]) -> None:
    split = {"by": "random", "stratify": False} if target == "legs" and task else None
    data = resolve(TABLE, target=target, task=task, split=split)
    assert data.resolved
    assert (data.resolved.task, data.resolved.outputs) == expected
    assert data.task == expected[0]


def test_the_order_of_classes() -> None:
    """Names by code point, so that capitals come first; the codes of the manifest are by frequency."""
    columns = {each.name: each for each in COLUMNS}
    assert classes_of(columns["species"]) == ("Owl", "auk", "wren")
    assert classes_of_codes(columns["species"]) == (2, 0, 1)
    assert class_counts_of(columns["species"], 60) == (20, 10, 30)
    assert (classes_of(columns["alive"]), class_counts_of(columns["alive"], 60)) == (("false", "true"), (45, 15))
    assert (classes_of(columns["legs"]), class_counts_of(columns["legs"], 60)) == (("1", "2"), (3, 57))
    assert classes_of(columns["weight"]) == classes_of(columns["seen"]) == ()


GAPS = table(*COLUMNS[:4], category("species", 0, {"a": 30, "b": 29}, missing=1))
ALONE = table(number("x", 0), category("y", 0, {"a": 40, "b": 19, "c": 1}))
SAME = table(number("x", 0), category("y", 0, {"a": 60}), number("z", 1, values=(7,), counts=(60,)),
             ColumnFacts(name="b", kind="boolean", numbers=(2,), mean=0.0))  # fmt: skip


@pytest.mark.parametrize(
    ("manifest", "fields", "pointer", "message"),
    [
        (TABLE, {}, "/data/target", 'column to predict; most likely "species"; the columns are "length", '),
        (TABLE, {"target": "specis"}, "/data/target", 'there is no column "specis"; did you mean "species"?'),
        (TABLE, {"target": "zzz"}, "/data/target", 'there is no column "zzz"; the columns are "length", '),
        (TABLE, {"target": "notes"}, "/data/target", '"notes" is a text, which cannot be predicted'),
        (TABLE, {"target": "seen"}, "/data/target", '"seen" is a date, which cannot be predicted'),
        (TABLE, {"target": "length"}, "/data/target", '"length" has no value in 2 of 60 rows'),
        (GAPS, {"target": "species"}, "/data/target", '"species" has no value in 1 of 60 rows'),
        (SAME, {"target": "y"}, "/data/target", 'every row has the same class "a"'),
        (SAME, {"target": "z", "task": "classification"}, "/data/target", 'every row has the same class "7"'),
        (SAME, {"target": "b"}, "/data/target", 'every row has the same class "false"'),
        (TABLE, {"target": "weight", "task": "classification"}, "/data/task", "values that are not whole, or"),
        (TABLE, {"target": "species", "task": "regression"}, "/data/task", "is a category, and a regression predicts"),
        (TABLE, {"target": "species", "task": "language_model"}, "/data/task", "the rows of a table are no text"),
        (ALONE, {"target": "y"}, "/data/split", 'the class "c" has one row, which a stratified split cannot divide'),
        (TABLE, {**FEW, "features": {"exclude": ["a", "islnd"]}}, "/data/features/exclude/0", 'no column "a"'),
        (TABLE, {**FEW, "features": {"include": ["notes"]}}, "/data/features/include/0", "is a text, which no model"),
        (TABLE, {**FEW, "features": {"include": ["species"]}}, "/data/features/include/0", "is the target"),
        (TABLE, {**FEW, "features": {"include": ["unused"]}}, "/data/features/include/0", "no value that is kept"),
        (table(COLUMNS[4], COLUMNS[8]), {"target": "species"}, "/data/features", "no feature is left"),
        (TABLE, {**FEW, "standardize": False, "numbers": {}}, "/data/numbers/scale", "and standardize is false"),
        (TABLE, {**FEW, "augment": [{"op": "hflip"}]}, "/data/augment", "it has no meaning for a table"),
        (TABLE, {**FEW, "context": 8}, "/data/context", "it has no meaning for a table"),
        (TABLE, {**FEW, "tokenizer": "bytes"}, "/data/tokenizer", "it has no meaning for a table"),
    ],
)  # fmt: skip
def test_refusals(manifest: DatasetManifest, fields: dict[str, Any], pointer: str, message: str) -> None:
    found = refused(manifest, **fields)
    assert found[0][0] == pointer
    assert message in found[0][1]


def test_every_unknown_feature_is_named() -> None:
    found = refused(TABLE, target="species", features={"exclude": ["weigth", "island", "nope"]})
    assert [pointer for pointer, _ in found] == ["/data/features/exclude/0", "/data/features/exclude/2"]
    assert 'did you mean "weight"?' in found[0][1]


def test_the_inputs_have_a_limit() -> None:
    wide = table(*(numbered(f"c{index}", index, [1] * 9000) for index in range(8)), number("x", 0), rows=9000)
    (pointer, message), *_ = refused(wide, target="x", categories={"encode": "one_hot"})
    assert (pointer, "72,001" in message, "65,536" in message) == ("/data/categories", False, True)
    found = resolve(wide, target="x").resolved
    assert found
    assert (found.input_shape, found.cardinalities) == ((8,), (9001,) * 8)


def test_a_class_with_one_row_may_stay_where_nothing_divides_it() -> None:
    for fields in (
        {"split": {"by": "random", "stratify": False}},
        {"split": {"by": "tail"}},
        {"validation": 0, "test": 0},
    ):
        found = resolve(ALONE, target="y", **fields).resolved
        assert found
        assert found.outputs == 3


def test_a_name_of_any_length_and_kind_is_cut_and_escaped() -> None:
    evil = "x\x1b[31m" + "y" * 500
    (_, message), *_ = refused(table(number(evil, 0, missing=5), number("z", 1)), target=evil)
    assert "\\u001b" in message
    assert "\x1b" not in message
    assert len(message) < 300


def warned(manifest: DatasetManifest, **fields: Any) -> dict[str, str]:
    found = resolve(manifest, **fields).resolved
    assert found
    return {each.code: each.message for each in found.warnings}


def test_warnings() -> None:
    """Of text, empty columns, ids, numbers that float32 rounds, rare classes and targets that look like classes."""
    found = warned(TABLE, target="legs")
    assert set(found) == {"text_left_out", "empty_left_out", "looks_like_classes"}
    assert '"notes"' in found["text_left_out"]
    assert '"unused"' in found["empty_left_out"]
    assert set(warned(TABLE, target="species")) == {"text_left_out", "empty_left_out"}
    assert warned(TABLE, **FEW) == {}
    rows = 3000
    odd = table(
        number("row", 0, minimum=1, maximum=rows, mean=(rows + 1) / 2, std=866.03),
        number("price", 1, minimum=1, maximum=rows, mean=400.0, std=866.03),
        number("phone", 2, minimum=20_000_001, maximum=99_999_999),
        number("distance", 3, minimum=0.5, maximum=1e9),
        numbered("code", 0, [1] * rows),
        category("y", 1, {"common": 2990, "rare": 10}),
        rows=rows,
    )
    found = warned(odd, target="y")
    assert found == {
        "looks_like_id": '"row", "code" are different in every row: an id says nothing about new rows',
        "beyond_float32": '"phone" is beyond 16,777,216: float32 rounds such whole numbers',
        "unbalanced_classes": 'the classes are very unbalanced: "common" has 2,990 rows and "rare" has 10',
    }


def test_what_was_left_open_is_filled_in_and_stays() -> None:
    data = resolve(TABLE, target="species")
    filled = json.loads(data.model_dump_json())
    assert filled["split"] == {"by": "random", "stratify": True}
    assert filled["numbers"] == {"scale": "standard", "missing": "median"}
    assert filled["categories"] == {"encode": "auto", "min_count": 1, "max_categories": None}
    assert resolve(TABLE, **filled) == data
    plain = json.loads(resolve(TABLE, target="weight", standardize=False).model_dump_json())
    assert (plain["numbers"]["scale"], plain["split"]["stratify"]) == ("none", False)


def test_many_unknown_names_are_answered_soon() -> None:
    """A comparison with each of 10,000 names for each of 4,096 would keep the api busy for minutes."""
    names = [f"{index:0100}" for index in range(4096)]
    before = time.process_time()
    assert len(refused(TABLE, target="species", features={"exclude": names})) == 50
    known = table(number("x", 0), numbered("c", 0, [2] * 10_000), rows=20_000)
    split = {"by": "column", "column": "c", "test": [f"{index:050}" for index in range(10_000)]}
    assert len(refused(known, target="x", split=split)) == 50
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("columns", "likely"),
    [
        ((number("x", 0), number("Target", 1), category("class", 0, {"a": 3, "b": 2})), "Target"),
        ((category("CLASS", 0, {"a": 3, "b": 2}), number("x", 0)), "CLASS"),
        ((number("x", 0), number("z", 1)), "z"),
        ((number("x", 0), ColumnFacts(name="label", kind="text")), "x"),  # a text cannot be predicted
        ((number("x", 0), number("y", 1, missing=1)), "x"),  # nor can a column with missing values
        ((ColumnFacts(name="y", kind="date"),), None),
    ],
)
def test_the_likely_target_has_a_usual_name_or_is_last(columns: tuple[ColumnFacts, ...], likely: str | None) -> None:
    assert likely_target(columns) == likely
