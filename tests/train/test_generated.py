"""Data that is made up: the same from the same fields, of the shape that its formula says, and worth training on."""

import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.recipe.data import DataSpec
from core.recipe.data.blobs import Blobs
from core.recipe.data.digits import Digits
from core.recipe.data.gaussian_images import GaussianImages
from core.recipe.data.generated import GeneratedSpec, StableRandom
from core.recipe.data.materialise import dataset_path, read_data
from core.recipe.data.moons import Moons
from core.recipe.data.spirals import Spirals
from tests.train.runs import Train, job
from worker import provision

Datasets = Callable[[DataSpec], Path]
EVERY: list[GeneratedSpec] = [Blobs(), Moons(), Spirals(), GaussianImages()]


def made(spec: GeneratedSpec) -> tuple[Any, Any]:
    tensors = spec.generate_arrays()
    return tensors["inputs"].astype(np.float64), tensors["targets"]


def test_draws_are_the_bits_of_pcg64() -> None:
    """NumPy's own doubles are made of the same 53 bits."""
    assert StableRandom(5).uniform(2, 3).ravel().tolist() == np.random.Generator(np.random.PCG64(5)).random(6).tolist()


def test_normals_are_normal() -> None:
    """The first four moments of 200,000; standard errors 0.002, 0.003, 0.009 and 0.02."""
    numbers = StableRandom(0).normal(200_000)
    assert numbers.mean() == pytest.approx(0, abs=0.01)
    assert (numbers**2).mean() == pytest.approx(1, abs=0.015)
    assert (numbers**3).mean() == pytest.approx(0, abs=0.04)
    assert (numbers**4).mean() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        (Blobs(), "946a8aa5520bf4f0"),
        (Moons(), "bf5e0bbb6ff9074f"),
        (Spirals(), "0317ce41bc62abd6"),
        (GaussianImages(examples=50), "b783a39eeeaab87f"),
    ],
    ids=["blobs", "moons", "spirals", "gaussian_images"],
)
def test_the_bytes_stay_what_they_were(datasets: Datasets, spec: GeneratedSpec, digest: str) -> None:
    """A literal: if it changes, every job of an older release would go on with other data."""
    assert sha256(datasets(spec).read_bytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: str(spec.name))
def test_classes_are_even_and_mixed(spec: GeneratedSpec) -> None:
    _, targets = made(spec.model_copy(update={"examples": 101}))
    counts = np.bincount(targets)
    assert len(counts) == spec.facts().outputs
    assert counts.max() - counts.min() <= 1
    assert sorted(targets.tolist()) != targets.tolist()


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: str(spec.name))
def test_a_file_belongs_to_the_fields_that_make_it(spec: GeneratedSpec, tmp_path: Path) -> None:
    own = dataset_path(spec, tmp_path)
    same = {"split_seed": 7, "validation": 0.3, "test": 0.0, "standardize": False}
    assert dataset_path(spec.model_copy(update=same), tmp_path) == own
    others = [spec.model_copy(update=each) for each in ({"seed": 1}, {"examples": 999}, {"noise": 0.25})]
    assert len({own, *(dataset_path(each, tmp_path) for each in others)}) == 4
    first, second = (made(each)[0] for each in (spec, spec.model_copy(update={"seed": 1})))
    assert not np.array_equal(first, second)
    assert dataset_path(Digits(split_seed=3), tmp_path) == tmp_path / "digits-1.safetensors"


def test_moons_lie_on_their_circles() -> None:
    points, targets = made(Moons(noise=0.0))
    upper, lower = points[targets == 0], points[targets == 1]
    np.testing.assert_allclose((upper**2).sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(((lower - [1.0, 0.5]) ** 2).sum(1), 1, atol=1e-5)
    assert upper[:, 1].min() >= 0
    assert lower[:, 1].max() <= 0.5
    noisy, _ = made(Moons(noise=0.3))
    assert (noisy - points).std() == pytest.approx(0.3, rel=0.05)


def test_spirals_turn() -> None:
    points, targets = made(Spirals(noise=0.0, classes=4, turns=1.5, examples=2000))
    radius = np.hypot(points[:, 0], points[:, 1])
    angle = np.arctan2(points[:, 1], points[:, 0])
    rest = (angle / (2 * np.pi) - 1.5 * radius - targets / 4)[radius > 0.05]
    np.testing.assert_allclose(rest - np.round(rest), 0, atol=1e-4)
    assert 0.99 < radius.max() < 1.001


def test_blobs_have_one_centre_each() -> None:
    points, targets = made(Blobs(noise=0.0, classes=5, features=3))
    assert len(np.unique(points, axis=0)) == 5
    assert all(len(np.unique(points[targets == label], axis=0)) == 1 for label in range(5))
    assert np.abs(points).max() <= 10
    noisy, _ = made(Blobs(noise=2.0, classes=5, features=3))
    assert (noisy - points).std() == pytest.approx(2.0, rel=0.05)


def test_pictures_are_sums_of_bumps() -> None:
    """A bump of height 1 and width s has the integral 2π s², where it does not reach the border."""
    images, targets = made(GaussianImages(noise=0.0, size=64, bumps=1, classes=30, examples=30, channels=2))
    assert images.shape == (30, 2, 64, 64)
    assert len(set(targets.tolist())) == 30
    sums = images.mean((2, 3)).ravel()
    assert sums.max() <= 2 * np.pi / 36 * 1.001
    assert sums.max() == pytest.approx(2 * np.pi / 36, rel=0.05)
    assert 0.99 < images.max() <= 1.0


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"data": {"name": "moons"}, "epochs": 40}, 0.97),
        ({"data": {"name": "spirals", "examples": 2000}, "model": {"name": "mlp"}, "epochs": 30}, 0.9),
        ({"data": {"name": "blobs", "noise": 0.5}, "model": {"name": "logistic"}, "epochs": 5}, 0.97),
        (
            {
                "data": {"name": "gaussian_images"},
                "model": {"name": "cnn", "channels": [8]},
                "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
                "epochs": 6,
            },
            0.9,
        ),
    ],
    ids=["moons", "spirals", "blobs", "gaussian_images"],
)
def test_it_can_be_learned(run: Train, fields: dict[str, Any], least: float) -> None:
    ending, _ = run(job(**fields))
    assert ending.results["base"]["test"]["accuracy"] >= least


def test_a_worker_writes_what_a_job_asks_for(tmp_path: Path) -> None:
    spec = Blobs(examples=60, classes=4, seed=2**63 - 1)
    path = provision.dataset_file(spec, tmp_path)
    assert path == dataset_path(spec, tmp_path)
    assert load_file(path)["inputs"].shape == (60, 2)
    assert provision.dataset_file(spec, tmp_path) == path
    command = [sys.executable, "-m", "core.recipe.data.materialise", str(tmp_path), "iris", '{"name": "moons"}']
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[2])
    assert all(dataset_path(read_data(name), tmp_path).exists() for name in ("iris", "moons"))
