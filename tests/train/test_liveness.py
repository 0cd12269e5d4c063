"""Every pass through a network, every product with a Hessian and every piece of a file is reported before it begins."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.analysis.loss_surface import LossSurface
from core.engine.analysis.stacked_network import StackedNetwork
from core.engine.checkpoints import files
from core.engine.checkpoints.files import write_bytes
from core.engine.gradients import gradient
from core.engine.gradients.closed_form import closed_form
from core.engine.liveness import Piece
from core.engine.networks import network
from core.recipe.analyses import AnalysisSpec, analysis_classes
from core.recipe.plan import resolve_plan
from core.recipe.spec import JobSpec
from tests.train import looks
from tests.train.looks import Look
from tests.train.recipes import MLP, RECIPES
from tests.train.runs import Train, Watcher, digests, job

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"micro_batch": 40}  # examples in one pass, so that a part takes several
SPECS = {
    "everything": RECIPES["everything"],
    "a full batch": job(batch_size="full"),
    "line searches": job(optimizer={"name": "lbfgs", "lr": 0.5}, batch_size="full"),
    "sam": job(sam={"rho": 0.05}),
    "judged elsewhere": job(optimizer={"name": "schedule_free_sgd", "lr": 0.1}, model=MLP),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "landscape": {"steps": 3, "directions": "eigen"},
    "trajectory": {"steps": 3},
    "interpolation": {"steps": 3},
    "connect": {"epochs": 1, "points": 3},
    "sharpness": {"measures": ["gradient_norm", "filter_noise", "eigenvalues"], "lanczos_steps": 10},
    "critical_point": {"lanczos_steps": 10, "points": 3},
    "lr_range": {"steps": 30},
    "gradient_noise": {"draws": 10, "small": 4, "large": 8},
}
WORK: dict[str, Piece] = {  # what most of it is
    "sharpness": "hessian",
    "critical_point": "hessian",
    "gradient_noise": "gradient",
    "lr_range": "step",
    "connect": "step",
}


class Machine:
    """Counts what is computed between two signs; none of it may come twice."""

    def __init__(self) -> None:
        self.kinds: Counter[Piece] = Counter()
        self._since: Counter[str] = Counter()

    def report_alive(self, piece: Piece) -> None:
        self.kinds[piece] += 1
        self._since.clear()

    def slowed(self, what: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self._since[what] += 1
            assert self._since[what] == 1, f"a second {what} without a sign of life before it"
            return compute(*arguments, **options)

        return counted


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    forward, bound = network.direct_forward, StackedNetwork.bind_weights

    def closed(*arguments: Any) -> Any:
        found = closed_form(*arguments)
        return found and made.slowed("pass", found)

    monkeypatch.setattr(network, "direct_forward", lambda module: made.slowed("pass", forward(module)))
    monkeypatch.setattr(gradient, "closed_form", closed)
    monkeypatch.setattr(StackedNetwork, "bind_weights", lambda *arguments: made.slowed("pass", bound(*arguments)))
    monkeypatch.setattr(
        LossSurface, "_mean_loss", lambda *given, whole=LossSurface._mean_loss: made.slowed("pass", whole)(*given)
    )
    monkeypatch.setattr(torch.autograd, "grad", made.slowed("product", torch.autograd.grad))
    monkeypatch.setattr(looks, "resolve_plan", lambda *asked: resolve_plan(*asked).model_copy(update=FEW))
    return made


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_pass_of_a_training_is_a_piece(run: Train, machine: Machine, spec: JobSpec) -> None:
    ended, _ = run(spec, Watcher(report_alive=machine.report_alive), plan=FEW)
    assert ended.outcome == "succeeded"
    assert {"dataset", "step", "evaluate", "checkpoint", "other"} <= set(machine.kinds)
    assert machine.kinds["evaluate"] >= 5  # 180 validation examples


def test_who_watches_changes_no_bit(run: Train) -> None:
    spec, pieces = RECIPES["everything"], list[Piece]()
    (_, plain), (_, watched) = run(spec), run(spec, Watcher(report_alive=pieces.append))
    assert pieces
    assert plain.series() == watched.series()
    assert [digests(each) for each in plain.checkpoints().values()] == [
        digests(each) for each in watched.checkpoints().values()
    ]


@pytest.mark.parametrize("model", [MLP, {"name": "mlp", "hidden": [16]}], ids=["estimated again", "plain"])
@pytest.mark.parametrize(
    "kind", sorted(name for name, kind in analysis_classes().items() if issubclass(kind, AnalysisSpec))
)
def test_every_pass_of_an_analysis_is_a_piece(
    run: Train, look: Look, machine: Machine, kind: str, model: dict[str, Any]
) -> None:
    spec, watcher = job(model=model, epochs=1, checkpoints={"every": "4st"}), Watcher(report_alive=machine.report_alive)
    subjects = [(spec, written) for written in run(spec, watcher)[1].checkpoints().values()]
    machine.kinds.clear()
    several = analysis_classes()[kind].fewest > 1 or kind in {"trajectory", "gradient_noise"}
    watcher = Watcher(report_alive=machine.report_alive)
    found = look(subjects if several else subjects[-1:], watcher, kind=kind, **OPTIONS.get(kind, {}))
    assert found.ended.outcome == "succeeded"
    assert machine.kinds[WORK.get(kind, "evaluate")] >= 5


def test_pieces_of_files_are_reported(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashed, written, and brought to the disk before too much waits for it."""
    synced: list[int] = []
    monkeypatch.setattr(files.os, "fsync", lambda _: synced.append(machine.kinds["checkpoint"]))
    written = write_bytes(tmp_path / "file", b"x" * 120, machine.report_alive, piece_bytes=10, unsynced_bytes=50)
    assert machine.kinds["checkpoint"] == 12
    assert synced == [6, 11, 12]
    found = files.file_digest(tmp_path / "file", machine.report_alive, "dataset", piece_bytes=10)
    assert found == written["sha256"]
    assert machine.kinds["dataset"] == 12
