"""docs/reproduce.md for data of one's own, followed by hand: a real table, and images that are mirrored at random."""

import csv
import hashlib
import io
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest
from core.recipe.spec import JobSpec
from tests.architecture.tree import ROOT
from tests.support.prepared import job_on, write_prepared
from tests.support.tables import prepare_table
from tests.train.runs import trainer
from tests.train.test_reproduce import PlainRun, Splits, assert_same, generator, mlp, seed_global, split, standardise

PENGUINS = ROOT / "examples" / "data" / "penguins.csv"
NUMBERS = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "year")
MASK = 2**64 - 1


@pytest.fixture(autouse=True)
def _same_randomness() -> Any:
    before = torch.default_generator.get_state()
    yield
    torch.default_generator.set_state(before)


def last_values(folder: Path, prepared: Path, spec: JobSpec) -> dict[str, float]:
    """The last point of every series of a job on a prepared dataset."""
    (folder / "runs").mkdir()
    ended, watcher = trainer(folder / "runs", lambda _: prepared)(spec)
    assert ended.outcome == "succeeded"
    return {name: points[-1][1] for name, points in watcher.series().items()}


def prepared_penguins(folder: Path) -> tuple[Path, DatasetManifest]:
    """The committed file as the service prepares it, as a worker lays it out."""
    made = prepare_table(PENGUINS.read_bytes())
    folder.mkdir()
    for name, values in made.tensors.items():
        save_file({name: torch.from_numpy(values.copy())}, folder / f"{name}.safetensors")
    (folder / MANIFEST_FILE).write_bytes(made.manifest.canonical_json())
    return folder, made.manifest


def penguin_rows() -> list[dict[str, str | None]]:
    """The rows of the file; NA is None."""
    rows = csv.DictReader(io.StringIO(PENGUINS.read_text()))
    return [{name: None if cell == "NA" else cell for name, cell in row.items()} for row in rows]


def plain_inputs(rows: list[dict[str, str | None]], train: list[int], categories: tuple[str, ...]) -> Tensor:
    """Numbers filled and standardised, marks of missing values, one-hot categories: float32 (n, F)."""
    numbers, marks, ones = [], [], []
    for name in NUMBERS:
        cells = [row[name] for row in rows]
        fill = statistics.median(float(cells[row]) for row in train if cells[row] is not None)  # type: ignore[arg-type]
        numbers.append(torch.tensor([fill if cell is None else float(cell) for cell in cells]))
        if None in cells:
            marks.append(torch.tensor([float(cell is None) for cell in cells]))
    for name in categories:
        counts = Counter(row[name] for row in rows if row[name] is not None)
        values = sorted(counts, key=lambda value: (-counts[value], value))
        ones += [torch.tensor([float(row[name] == value) for row in rows]) for value in values]
    scaled = standardise(torch.stack(numbers, 1), torch.tensor(train))
    return torch.cat([scaled, torch.stack([*marks, *ones], 1)], 1)


def group_parts(rows: list[dict[str, str | None]], validation: float, test: float) -> Splits:
    """The split by island."""
    counts = Counter(row["island"] for row in rows)
    wanted = {"test": int(len(rows) * test + 0.5), "validation": int(len(rows) * validation + 0.5)}
    taken, part_of = {"test": 0, "validation": 0}, dict.fromkeys(counts, "train")
    for island in sorted(counts, key=lambda value: hashlib.sha256(f"0:{value}".encode()).digest()):
        part = next((name for name in ("test", "validation") if taken[name] < wanted[name]), None)
        if part:
            part_of[island] = part
            taken[part] += counts[island]
    return {
        name: torch.tensor([at for at, row in enumerate(rows) if part_of[row["island"]] == name])
        for name in ("train", "validation", "test")
    }


@pytest.mark.parametrize("by", ["random", "group"])
def test_penguins(tmp_path: Path, by: str) -> None:
    """Medians and moments of the train rows, marks, the order of one-hot inputs, classes, and both splits."""
    rows = penguin_rows()
    names = sorted({row["species"] or "" for row in rows})
    targets = torch.tensor([names.index(row["species"] or "") for row in rows])
    parts = split(targets, 0.1, 0.2) if by == "random" else group_parts(rows, 0.1, 0.2)
    categories = ("island", "sex") if by == "random" else ("sex",)  # the column of a split is no feature
    inputs = plain_inputs(rows, parts["train"].tolist(), categories)
    plain = PlainRun(inputs, targets, parts, mlp(inputs.shape[1], 16, 3), 24)
    list(plain.train(torch.optim.SGD(plain.network.parameters(), lr=0.1, momentum=0.9), 3))
    folder, manifest = prepared_penguins(tmp_path / "penguins")
    chosen = {"split": {"by": "group", "column": "island"}} if by == "group" else {}
    seen = last_values(tmp_path, folder, job_on(manifest, {"target": "species", **chosen}))
    assert_same(plain.classification("validation"), seen, "val")
    assert_same(plain.classification("test"), seen, "test")


def splitmix64(number: int) -> int:
    mixed = number * 0x9E3779B97F4A7C15 & MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & MASK
    return mixed ^ mixed >> 31


def uniform(seed: int, epoch: int, row: int, *draw: str | int) -> float:
    key = generator(seed, "augment", epoch, *draw).initial_seed() & MASK
    return float((splitmix64(splitmix64(row + 1) ^ key) >> 11) * 2**-53)


def augmented(images: Tensor, epoch: int) -> Tensor:
    """Cropped with one black pixel around, then mirrored, as float32."""
    changed = []
    for row, image in enumerate(images):
        top, left = (int(uniform(0, epoch, row, 0, name) * 3) for name in ("top", "left"))
        padded = torch.zeros(1, 8, 8, dtype=image.dtype)
        padded[:, 1:7, 1:7] = image
        moved = padded[:, top : top + 6, left : left + 6]
        changed.append(moved.flip(2) if uniform(0, epoch, row, 1, "flip") < 0.5 else moved)
    return torch.stack(changed).float()


def test_augmented_images(tmp_path: Path) -> None:
    """Each draw is a hash of seed, epoch, row and name; moments are those of the images without changes."""
    drawn = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (90, 1, 6, 6), generator=drawn, dtype=torch.uint8)
    labels = torch.arange(90) % 3
    facts = {"classes": ("a", "b", "c"), "class_counts": (30, 30, 30)}
    manifest = write_prepared(tmp_path / "images", "images", {"pixels": images, "labels": labels}, **facts)
    parts = split(labels, 0.1, 0.2)
    of_train = images[parts["train"]].double()
    mean, deviation = of_train.mean().float(), of_train.std(correction=0).float()
    seed_global(0, "init")
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    plain = PlainRun((images.float() - mean) / deviation, labels, parts, network, 16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for epoch in range(3):
        inputs = (augmented(images, epoch) - mean) / deviation
        order = parts["train"][torch.randperm(len(parts["train"]), generator=generator(0, "order", epoch))]
        for rows in order.split(16):
            optimizer.zero_grad()
            plain.loss(network(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    augment = [{"op": "crop", "padding": 1}, {"op": "hflip"}]
    fields = {"model": {"name": "logistic"}, "optimizer": {"name": "sgd", "lr": 0.05}, "batch_size": 16}
    seen = last_values(tmp_path, tmp_path / "images", job_on(manifest, {"augment": augment}, **fields))
    assert_same(plain.classification("validation"), seen, "val")
    assert_same(plain.classification("test"), seen, "test")
