"""The parts of an uploaded dataset: their sizes, and every reason that a dataset cannot be split so."""

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidSpec
from core.recipe.data.manifest import ColumnFacts, DatasetManifest
from core.recipe.data.split import assign_groups
from tests.support.manifests import category, images, number, resolve, table, text

TABLE = table()
STORED = table(split_counts=(30, 10, 20))


def sizes(manifest: DatasetManifest, **fields: Any) -> tuple[int, int, int]:
    found = resolve(manifest, **fields).split()
    return found.train, found.validation, found.test


def refused(manifest: DatasetManifest, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpec) as caught:
        resolve(manifest, **fields)
    return [(each.pointer, f"{each.message}; {each.hint}") for each in caught.value.errors]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (None, (42, 6, 12)),
        ({"by": "random"}, (42, 6, 12)),
        ({"by": "tail"}, (42, 6, 12)),
        ({"by": "column", "column": "part", "validation": ["check"], "test": ["exam"]}, (40, 12, 8)),
        ({"by": "column", "column": "part", "test": ["exam", "check"]}, (40, 0, 20)),
        ({"by": "column", "column": "island", "test": ["south"]}, (43, 0, 17)),  # rows without an island train
    ],
)
def test_sizes_of_the_parts(split: dict[str, Any] | None, expected: tuple[int, int, int]) -> None:
    assert sizes(TABLE, target="species", split=split) == expected


def test_the_parts_of_the_upload_are_the_default_where_it_has_some() -> None:
    assert sizes(STORED, target="species") == (30, 10, 20)
    assert resolve(STORED, target="species").model_dump(mode="json")["split"] == {"by": "stored"}
    assert sizes(STORED, target="species", split={"by": "random"}) == (42, 6, 12)
    assert sizes(images(split_counts=(50, 0, 10))) == (50, 0, 10)
    assert sizes(text(1001, split_counts=(801, 101, 99)), context=10) == (80, 10, 9)


def test_text_is_split_at_its_end() -> None:
    """1,001 tokens are 100 windows of 10 tokens with one that follows."""
    data = resolve(text(1001), context=10, validation=0.05, test=0)
    assert data.model_dump(mode="json")["split"] == {"by": "tail"}
    assert (data.facts().examples, data.split().validation) == (100, 5)


def test_groups_stay_whole_and_come_in_the_order_of_their_digests() -> None:
    """By hand: six groups of 10; a tenth and a fifth of 60 rows are 6 and 12, so one and two groups."""
    names = [f"g{index}" for index in range(6)]
    order = sorted(names, key=lambda name: sha256(f"7:{name}".encode()).hexdigest())
    expected = {order[0]: 2, order[1]: 2, order[2]: 1}
    found = assign_groups(names, [10] * 6, 7, validation=0.1, test=0.2)
    assert found == tuple(expected.get(name, 0) for name in names)
    assert found != assign_groups(names, [10] * 6, 8, validation=0.1, test=0.2)
    manifest = table(number("x", 0), number("y", 1), category("patient", 0, dict.fromkeys(names, 10)))
    split = {"by": "group", "column": "patient"}
    assert sizes(manifest, target="y", split=split, split_seed=7) == (30, 10, 20)
    assert sizes(manifest, target="y", split=split, validation=0, test=0) == (60, 0, 0)


@pytest.mark.parametrize(
    ("split", "pointer", "message"),
    [
        ({"by": "stored"}, "/data/split/by", "the upload has no parts of its own"),
        ({"by": "group", "column": "ilsand"}, "/data/split/column", 'no column "ilsand"; did you mean "island"?'),
        ({"by": "column", "column": "no"}, "/data/split/column", 'no column "no"; the columns are'),
        ({"by": "group", "column": "weight"}, "/data/split/column", '"weight" is a number, not a category'),
        ({"by": "column", "column": "alive"}, "/data/split/column", '"alive" is a boolean, not a category'),
        ({"by": "group", "column": "notes"}, "/data/split/column", "more than 10,000 different values"),
        ({"by": "group", "column": "island"}, "/data/split/column", "no value in 3 rows, so that their group is not"),
        ({"by": "group", "column": "species"}, "/data/split/column", "the target cannot decide the split"),
        ({"by": "column", "column": "part"}, "/data/split", "no value is for validation or test"),
        ({"by": "column", "column": "part", "test": ["exm"]}, "/data/split/test/0", 'no value "exm"; did you mean "ex'),
        ({"by": "column", "column": "part", "validation": ["fit"], "test": ["exam", "fit"]}, "/data/split/test/1",
         '"fit" is in the list already, or in that of validation'),
        ({"by": "column", "column": "part", "test": ["exam", "fit", "check"]}, "/data/split", "nothing to train on"),
        ({"by": "random", "stratify": True}, None, None),
    ],
)  # fmt: skip
def test_refusals(split: dict[str, Any], pointer: str | None, message: str | None) -> None:
    if pointer is None or message is None:
        assert sizes(TABLE, target="species", split=split) == (42, 6, 12)
        return
    found = refused(TABLE, target="species", split=split)
    assert found[0][0] == pointer
    assert message in found[0][1]


def test_more_refusals() -> None:
    regression = refused(TABLE, target="weight", split={"by": "random", "stratify": True})
    assert regression == [("/data/split/stratify", "a regression has no classes; leave it out")]
    whole = table(number("x", 0), category("y", 0, {"a": 30, "b": 30}), category("who", 1, {"ann": 60}))
    assert refused(whole, target="y", split={"by": "group", "column": "who"})[0][0] == "/data/split"
    for manifest, fields in ((images(), {}), (text(), {"context": 4})):
        found = refused(manifest, split={"by": "group", "column": "x"}, **fields)
        assert found[0][0] == "/data/split/by"
        assert "have no columns" in found[0][1]
    untrained = refused(table(split_counts=(0, 30, 30)), target="species")
    assert untrained == [("/data/split/by", 'the upload has no rows to train on; use "random"')]


COUNTS = st.lists(st.integers(2, 50), min_size=2, max_size=30)
SHARE = st.floats(0, 0.45)


SHARES = st.fixed_dictionaries({"validation": SHARE, "test": SHARE, "split_seed": st.integers(0, 2**40)})


@settings(max_examples=100, deadline=None)
@given(counts=COUNTS, groups=COUNTS, shares=SHARES)
def test_the_parts_hold_every_row_once(counts: list[int], groups: list[int], shares: dict[str, Any]) -> None:
    """Whatever the split: train + validation + test are all rows, and no part is negative."""
    rows = sum(counts)
    others = [size for index, size in enumerate(groups) if sum(groups[: index + 1]) < rows]
    others.append(rows - sum(others))
    columns = (
        ColumnFacts(name="x", kind="number", numbers=(0,), mean=1.0),
        category("y", 0, {f"c{index}": size for index, size in enumerate(counts)}),
        category("g", 1, {f"g{index}": size for index, size in enumerate(others)}),
        category("h", 2, {"here": rows - 1, "there": 1}),
    )
    manifest = table(*columns, rows=rows, split_counts=(rows - 2, 1, 1))
    splits: list[dict[str, Any]] = [{"by": "random"}, {"by": "tail"}, {"by": "stored"}]
    splits.append({"by": "column", "column": "h", "test": ["there"]})
    grouped = {"by": "group", "column": "g"}
    parts = assign_groups([f"g{index}" for index in range(len(others))], others, **shares)
    taken = [sum(size for size, part in zip(others, parts, strict=True) if part == which) for which in range(3)]
    wanted = int(rows * shares["test"] + 0.5)
    assert wanted <= taken[2] < wanted + max(others)
    if taken[0]:
        splits.append(grouped)
        assert sizes(manifest, target="y", split=grouped, **shares) == tuple(taken)
    else:
        assert refused(manifest, target="y", split=grouped, **shares)[0][0] == "/data/split"
    for split in splits:
        found = sizes(manifest, target="y", split=split, **shares)
        assert sum(found) == rows
        assert min(found) >= 0
