"""The promises of the engine, on a CUDA device."""

import pytest

from core.recipe.spec import JobSpec
from tests.gpu.specs import IMAGES, MODELS, STEPS, learning, stepped_specs
from tests.train.runs import Train, Watcher, digests, job

pytestmark = pytest.mark.gpu

ON_GPU = {"plan": {"device": "cuda"}}


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in stepped_specs().items()])
def test_resume_on_cuda_is_bit_exact(run: Train, spec: JobSpec) -> None:
    ending, whole = run(spec, **ON_GPU)
    assert ending.outcome == "succeeded"
    last, points = None, []
    for before, stop in ((0, 3), (3, 13), (13, 14), (14, 0)):
        _, piece = run(spec, Watcher(stop_after=stop - before), last, **ON_GPU)
        points += piece.series()["train.loss"]
        last = max(piece.checkpoints().items())[1]
    assert last
    assert digests(last) == digests(whole.checkpoints()[STEPS])
    assert points == whole.series()["train.loss"]


def test_cuda_and_cpu_agree(run: Train) -> None:
    """Same start, same order, same arithmetic up to rounding: the first losses are close."""
    spec = job(model=MODELS["mlp"], data=IMAGES, optimizer={"name": "sgd", "lr": 0.05})
    (_, cpu), (_, cuda) = run(spec), run(spec, **ON_GPU)
    assert [value for _, value in cuda.series()["train.loss"]] == pytest.approx(
        [value for _, value in cpu.series()["train.loss"]], rel=1e-3
    )


def test_it_learns_on_cuda(run: Train) -> None:
    ending, watcher = run(learning(), **ON_GPU)
    assert ending.results["base"]["test"]["accuracy"] > 0.9
    assert watcher.checkpoints()[max(watcher.checkpoints())].manifest["environment"]["kind"] == "cuda"
