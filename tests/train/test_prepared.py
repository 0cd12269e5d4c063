"""Prepared datasets: what the network reads, from which rows, on which scale; mapped and resident alike."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from core.engine.datasets.loaded import LoadedDataset
from core.engine.datasets.prepared import DESCRIPTION, decode_json, load_prepared
from core.engine.datasets.split import Split, iterate_chunks
from core.engine.failure import EngineError
from core.recipe.data import Dataset
from core.recipe.data.manifest import DatasetManifest
from core.recipe.plan import DataAccess
from core.recipe.spec import JobSpec
from tests.support.prepared import (
    category,
    dataset_of,
    job_on,
    number,
    numbers_and_mask,
    write_prepared,
)
from tests.train.runs import Watcher, digests, trainer

CPU = torch.device("cpu")
ROWS = 100
SPECIES = ["a", "b"] * (ROWS // 2)
WEIGHT: list[float | None] = [None if row % 10 == 3 else row * 1.5 - 20 for row in range(ROWS)]
AGE: list[float | None] = [float(row % 7) for row in range(ROWS)]
CITY: list[str | None] = [("x", "y", "z", None)[row % 4] if row else "rare" for row in range(ROWS)]
STREET: list[str | None] = [f"street {row % 20:02d}" for row in range(ROWS)]


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, DatasetManifest]:
    """Two numbers, one with missing values, a category of four values and one of twenty, and a target."""
    city, city_codes = category("city", CITY, 0)
    street, street_codes = category("street", STREET, 1)
    species, species_codes = category("species", list(SPECIES), 2)
    manifest = write_prepared(
        tmp_path / "table",
        "table",
        {**numbers_and_mask([WEIGHT, AGE]), "codes": torch.stack([city_codes, street_codes, species_codes], 1)},
        columns=(number("weight", WEIGHT, 0), number("age", AGE, 1), city, street, species),
    )
    return tmp_path / "table", manifest


def load(folder: Path, data: Dataset, access: DataAccess = "resident") -> LoadedDataset[Split]:
    return load_prepared(data, folder, CPU, access)


def rows_of(folder: Path, data: Dataset) -> Tensor:
    """The rows of the train split, in its order: those of a mapped one are on record."""
    rows: Tensor = load(folder, data, "mapped").train.rows  # type: ignore[attr-defined]
    return rows


def test_a_table_as_the_network_reads_it(table: tuple[Path, DatasetManifest]) -> None:
    folder, manifest = table
    data = dataset_of(manifest, target="species")
    found = load(folder, data)
    train = rows_of(folder, data).tolist()
    inputs, targets = found.train.whole()
    known = [value for value in (WEIGHT[row] for row in train) if value is not None]
    filled = [np.median(known) if WEIGHT[row] is None else WEIGHT[row] for row in train]
    numbers = StandardScaler().fit_transform(np.array([filled, [AGE[row] for row in train]]).T)
    np.testing.assert_allclose(inputs[:, :2], numbers, atol=1e-5)
    assert inputs[:, 2].tolist() == [float(WEIGHT[row] is None) for row in train]
    for column, name in enumerate(("y", "z", "x")):  # 25 rows, 25 and 24
        assert inputs[:, 3 + column].tolist() == [float(CITY[row] == name) for row in train]
    assert inputs[:, 6].tolist() == [float(CITY[row] == "rare") for row in train]
    seen = sorted({STREET[row] for row in train}, key=str)
    assert len(seen) == 20  # ties of 5 rows each are in the order of names
    assert inputs[:, 7].tolist() == [1.0 + seen.index(STREET[row]) for row in train]
    assert data.facts().cardinalities == (21,)
    assert data.facts().input_shape == (8,)
    assert targets.tolist() == [int(SPECIES[row] == "b") for row in train]
    assert [len(part) for part in (found.train, found.validation, found.test)] == [70, 10, 20]


def test_values_that_the_train_split_lacks_have_code_0(table: tuple[Path, DatasetManifest]) -> None:
    folder, manifest = table
    held_out = {"by": "column", "column": "street", "test": ["street 05", "street 19"], "validation": ["street 02"]}
    data = dataset_of(manifest, target="species", split=held_out, categories={"encode": "embed"})
    found = load(folder, data)
    assert found.test.targets.tolist() == [int(row % 2) for row in range(ROWS) if row % 20 in {5, 19}]
    assert [len(part) for part in (found.train, found.validation, found.test)] == [85, 5, 10]
    assert data.facts().cardinalities == (5,)  # the column of the split is no feature
    tail = dataset_of(manifest, target="species", split={"by": "tail"}, test=0.99, validation=0.0)
    assert [len(part) for part in (load(folder, tail).train, load(folder, tail).test)] == [1, 99]
    codes = load(folder, tail).test.whole()[0][:, -1]
    assert codes.eq(0).all()  # only street 00 of row 0 is known
    assert load(folder, tail).train.whole()[0][0, -1] == 1


@pytest.mark.parametrize("missing", ["median", "mean", "zero"])
@pytest.mark.parametrize("scale", ["standard", "quantile", "none"])
def test_numbers(table: tuple[Path, DatasetManifest], missing: str, scale: str) -> None:
    folder, manifest = table
    options = {"numbers": {"missing": missing, "scale": scale}, "features": {"include": ["weight"]}}
    data = dataset_of(manifest, target="species", split={"by": "tail"}, **options)
    inputs = torch.cat([part.whole()[0] for part in parts_of(load(folder, data))])
    known = np.array([value for value in WEIGHT[:70] if value is not None])
    fill = {"median": np.median(known), "mean": known.mean(), "zero": 0.0}[missing]
    filled = np.array([fill if value is None else value for value in WEIGHT])
    if scale == "standard":
        expected = (filled - filled[:70].mean()) / filled[:70].std()
    elif scale == "none":
        expected = filled
    else:
        expected = None
        assert inputs[:70, 0].argsort(stable=True).tolist() == filled[:70].argsort(kind="stable").tolist()
        assert inputs[:, 0].max() == inputs[:70, 0].max()  # constant beyond the train values
        assert float(inputs[:70, 0].mean()) == pytest.approx(0, abs=0.02)
        assert float(inputs[:70, 0].std()) == pytest.approx(1, abs=0.1)
    if expected is not None:
        np.testing.assert_allclose(inputs[:, 0], expected, rtol=1e-5, atol=1e-5)


def parts_of(found: LoadedDataset[Split]) -> tuple[Split, Split, Split]:
    return found.train, found.validation, found.test


def test_groups_stay_together(table: tuple[Path, DatasetManifest]) -> None:
    folder, manifest = table
    data = dataset_of(manifest, target="species", split={"by": "group", "column": "street"})
    splits = [load(folder, data, "mapped").train, load(folder, data, "mapped").test]
    streets = [{STREET[row] for row in each.rows.tolist()} for each in splits]  # type: ignore[attr-defined]
    assert not streets[0] & streets[1]
    assert len(splits[1]) == data.split().test


def test_a_regression_has_standardised_targets(table: tuple[Path, DatasetManifest]) -> None:
    folder, manifest = table
    data = dataset_of(manifest, target="age", task="regression", split={"by": "tail"})
    found = load(folder, data)
    ages = np.array([value for value in AGE if value is not None])
    expected = (ages - ages[:70].mean()) / ages[:70].std()
    np.testing.assert_allclose(found.test.targets[:, 0], expected[80:], rtol=1e-5)
    assert found.fitted["standardize.target_mean"].tolist() == pytest.approx([ages[:70].mean()])
    classes = dataset_of(manifest, target="age", task="classification", split={"by": "tail"})
    assert load(folder, classes).test.targets.tolist() == [row % 7 for row in range(80, 100)]


def test_label_noise_is_for_the_train_split_alone(table: tuple[Path, DatasetManifest]) -> None:
    folder, manifest = table
    clean, noisy = (load(folder, dataset_of(manifest, target="species", label_noise=share)) for share in (0.0, 0.5))
    assert int((clean.train.targets != noisy.train.targets).sum()) == 35
    assert torch.equal(clean.test.targets, noisy.test.targets)


def pictures(folder: Path, channels: int = 3, *, own_split: bool = False) -> DatasetManifest:
    """120 images of 8 by 8 in four classes; those of a class have one bright quarter."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 4
    pixels = torch.randint(0, 120, (120, channels, 8, 8), generator=generator, dtype=torch.uint8)
    for row, label in enumerate(labels.tolist()):
        pixels[row, :, label // 2 * 4 : label // 2 * 4 + 4, label % 2 * 4 : label % 2 * 4 + 4] += 100
    tensors = {"pixels": pixels, "labels": labels}
    fields: dict[str, Any] = {"classes": ("a", "b", "c", "d"), "class_counts": (30,) * 4}
    if own_split:
        tensors["split"] = (torch.arange(120) // 40).to(torch.uint8)
        fields["split_counts"] = (40, 40, 40)
    return write_prepared(folder, "images", tensors, **fields)


def test_images_stay_bytes_and_are_scaled_when_taken(tmp_path: Path) -> None:
    manifest = pictures(tmp_path / "images", own_split=True)
    data = dataset_of(manifest)
    found = load(tmp_path / "images", data)
    pixels = load_file(tmp_path / "images" / "pixels.safetensors")["pixels"].numpy()
    assert found.train.source.tensors["pixels"].dtype == torch.uint8  # type: ignore[attr-defined]
    train = pixels[:40].astype(np.float64)
    mean, std = train.mean((0, 2, 3), keepdims=True), train.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(found.test.whole()[0], (pixels[80:] - mean) / std, rtol=1e-4, atol=1e-5)
    assert found.fitted["standardize.mean"].shape == (3, 1, 1)
    assert found.validation.targets.tolist() == [row % 4 for row in range(40, 80)]
    plain = load(tmp_path / "images", dataset_of(manifest, standardize=False))
    assert torch.equal(plain.test.whole()[0], torch.from_numpy(pixels[80:]).float())


def numbers_file(folder: Path, rows: int = 90, width: int = 7) -> DatasetManifest:
    """Arrays with regression targets."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(rows, width, generator=generator) * 3 + 1
    return write_prepared(folder, "arrays", {"inputs": inputs, "targets": inputs[:, :1] * 2 + inputs[:, 1:2]})


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "images": ({"augment": [{"op": "crop", "padding": 1}, {"op": "mixup"}, {"op": "hflip"}]}, {"batch_size": 7}),
    "cnn": (
        {"augment": [{"op": "randaugment"}, {"op": "cutmix"}], "label_noise": 0.1},
        {
            "model": {"name": "cnn", "channels": [4], "hidden": [8], "batch_norm": True},
            "batch_size": 5,
            "accumulate": 2,
            "swa": {"start": "1ep"},
            "evaluate": {"every": "3st"},
        },
    ),
    "table": (
        {"target": "species", "shuffle": "blocks"},
        {"batch_size": 7, "model": {"name": "mlp", "batch_norm": True}},
    ),
    "quantile": ({"target": "species", "numbers": {"scale": "quantile"}}, {"batch_size": "full"}),
    "arrays": ({}, {"batch_size": 7, "drop_last": True, "swa": {"start": "1ep"}}),
    "full": ({"augment": [{"op": "erase"}]}, {"batch_size": "full"}),
}


def case(name: str, tmp_path: Path, table: tuple[Path, DatasetManifest]) -> tuple[Path, JobSpec]:
    """The folder and the job of a case."""
    data, fields = CASES[name]
    if name in {"table", "quantile"}:
        return table[0], job_on(table[1], {"categories": {"encode": "one_hot"}, **data}, **fields)
    folder = tmp_path / name
    manifest = numbers_file(folder) if name == "arrays" else pictures(folder)
    return folder, job_on(manifest, data, **fields)


@pytest.mark.parametrize("name", CASES)
def test_mapped_and_resident_give_the_same_bits_also_through_a_stop(
    name: str, tmp_path: Path, table: tuple[Path, DatasetManifest]
) -> None:
    folder, spec = case(name, tmp_path, table)
    run = trainer(tmp_path / "runs", lambda _: folder)
    (tmp_path / "runs").mkdir()
    _, whole = run(spec, plan={"data_access": "resident"})
    _, mapped = run(spec, plan={"data_access": "mapped"})
    last = max(whole.checkpoints())
    assert digests(whole.checkpoints()[last]) == digests(mapped.checkpoints()[last])
    assert whole.series() == mapped.series()
    stop = last // 2 + 1
    _, first = run(spec, Watcher(stop_after=stop), plan={"data_access": "mapped"})
    kept = first.checkpoints()[max(first.checkpoints())]
    assert 0 < kept.step < last
    ended, second = run(spec, resume=kept, plan={"data_access": "resident"})
    assert digests(second.checkpoints()[last]) == digests(whole.checkpoints()[last])
    assert ended.results == run(spec)[0].results


def test_what_was_fitted_is_stored_with_the_weights(tmp_path: Path, table: tuple[Path, DatasetManifest]) -> None:
    folder, spec = case("table", tmp_path, table)
    (tmp_path / "runs").mkdir()
    ended, watcher = trainer(tmp_path / "runs", lambda _: folder)(spec)
    assert ended.results
    last = watcher.checkpoints()[max(watcher.checkpoints())]
    stored = load_file(Path(last.folder) / "weights.safetensors")
    names = {name for name in stored if name.startswith("standardize.")}
    assert names == {f"standardize.{each}" for each in ("fill", "mean", "std", "codes", "description")}
    document = decode_json(stored[DESCRIPTION])
    assert document["classes"] == ["a", "b"]
    assert document["version"] == table[1].version()
    assert [each["name"] for each in document["columns"]] == ["weight", "age", "city", "street"]
    assert document["columns"][2]["values"] == ["y", "z", "x", "rare"]
    assert sum(each["width"] for each in document["features"]) == spec.data.facts().features


@pytest.mark.parametrize("sizes", [7, 16, 50])
def test_chunks_are_the_split_itself(tmp_path: Path, sizes: int) -> None:
    manifest = numbers_file(tmp_path / "arrays")
    data = dataset_of(manifest)
    resident, mapped = (load(tmp_path / "arrays", data, access).train for access in ("resident", "mapped"))
    for ours, theirs in zip(iterate_chunks(mapped, sizes), iterate_chunks(resident, sizes), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        assert (ours[0].data_ptr() - theirs[0].data_ptr()) % 64 == 0
    chosen = torch.tensor([5, 3, 60])
    assert torch.equal(mapped.select(chosen).whole()[0], resident.whole()[0][chosen])


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    manifest = numbers_file(tmp_path / "arrays")
    data = dataset_of(manifest)
    (tmp_path / "arrays" / "targets.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError, match="cannot read the dataset's targets") as caught:
        load(tmp_path / "arrays", data)
    assert caught.value.code == "bad_data"
    (tmp_path / "arrays" / "manifest.json").write_bytes(b"{}")
    with pytest.raises(EngineError, match="version"):
        load(tmp_path / "arrays", data)


MEASURE = """
import json, sys
from pathlib import Path
import torch
from core.engine.datasets.prepared import load_prepared
from core.engine.datasets.batches import BatchSampler, iterate_batches
from core.recipe.data import Dataset

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

torch.set_num_threads(1)
torch.ones(100, 100) @ torch.ones(100, 100)
before = anonymous()
data = Dataset.model_validate_json(sys.argv[2])
found = load_prepared(data, Path(sys.argv[1]), torch.device("cpu"), sys.argv[3])
most = anonymous()
for t, (inputs, targets) in iterate_batches(found.train, BatchSampler(512, len(found.train)), 0, 0, 200):
    if t % 20 == 0:
        most = max(most, anonymous())
print(json.dumps(most - before))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it reads Linux's /proc")
def test_a_mapped_dataset_needs_no_memory_of_the_process(tmp_path: Path) -> None:
    """300 MB of inputs in 100,000 rows: resident it needs all of them, mapped less than a third."""
    rows, width = 100_000, 786
    inputs = torch.zeros(rows, width)
    inputs[:, 0] = torch.arange(rows)
    manifest = write_prepared(tmp_path / "big", "arrays", {"inputs": inputs, "targets": torch.arange(rows) % 2})
    del inputs
    manifest = manifest.model_copy(update={"classes": ("0", "1"), "class_counts": (rows // 2, rows // 2)})
    (tmp_path / "big" / "manifest.json").write_bytes(manifest.canonical_json())
    data = dataset_of(manifest).model_dump_json(by_alias=True)
    grown = {}
    for access in ("mapped", "resident"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "big"), data, access]
        grown[access] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert grown["mapped"] < 100
    assert grown["resident"] > 200
