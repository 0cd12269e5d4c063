"""The promises of the engine, on a CUDA device."""

from typing import Any

import pytest

from core.recipe.catalog import components
from tests.train.runs import Train, Watcher, digests, job

pytestmark = pytest.mark.gpu

ON_GPU = {"plan": {"device": "cuda"}}
CNN = {"name": "cnn", "channels": [4, 6], "hidden": [12], "batch_norm": True, "dropout": 0.2}
MLP = {"name": "mlp", "hidden": [32, 32]}


@pytest.mark.parametrize("optimizer", sorted(components("optimizers")))
@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_resume_on_cuda_is_bit_exact(run: Train, model: dict[str, Any], optimizer: str) -> None:
    spec = job(model=model, optimizer={"name": optimizer, "lr": 0.01}, swa={"start": "10st", "every": "3st"})
    ending, whole = run(spec, **ON_GPU)
    assert ending.outcome == "succeeded"
    last, points = None, []
    for before, stop in ((0, 3), (3, 13), (13, 14), (14, 0)):
        _, piece = run(spec, Watcher(stop_after=stop - before), last, **ON_GPU)
        points += piece.series()["train.loss"]
        last = max(piece.checkpoints().items())[1]
    assert last
    assert digests(last) == digests(whole.checkpoints()[24])
    assert points == whole.series()["train.loss"]


def test_cuda_and_cpu_agree(run: Train) -> None:
    """Same start, same order, same arithmetic up to rounding: the first losses are close."""
    spec = job(model=MLP, optimizer={"name": "sgd", "lr": 0.05})
    (_, cpu), (_, cuda) = run(spec), run(spec, **ON_GPU)
    assert [value for _, value in cuda.series()["train.loss"]] == pytest.approx(
        [value for _, value in cpu.series()["train.loss"]], rel=1e-3
    )


def test_it_learns_on_cuda(run: Train) -> None:
    spec = job(model=CNN, data={"name": "digits"}, optimizer={"name": "adam", "lr": 3e-3}, epochs=6)
    ending, watcher = run(spec, **ON_GPU)
    assert ending.results["base"]["test"]["accuracy"] > 0.9
    assert watcher.checkpoints()[max(watcher.checkpoints())].manifest["environment"]["kind"] == "cuda"
