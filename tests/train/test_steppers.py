"""What each kind of stepper promises: where it trains, what it shows and keeps, and what it says when it cannot."""

import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.events import Log, Started
from core.engine.failure import EngineError
from core.engine.gradients.gradient import build_gradient
from core.engine.networks.network import Network, build_network, flatten
from core.engine.networks.roles import hidden_matrices
from core.engine.optimizers import state_dict
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.stepper import Stepper, build_stepper
from core.recipe.catalog import component_classes
from core.recipe.facts import DataFacts
from core.recipe.models.cnn import CNN
from core.recipe.models.logistic import Logistic
from core.recipe.models.mlp import MLP
from core.recipe.optimizers.adafactor import Adafactor
from core.recipe.optimizers.lbfgs import LBFGS
from core.recipe.optimizers.muon import Muon
from core.recipe.optimizers.pytorch_optimizer import PytorchOptimizer
from core.recipe.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from core.recipe.optimizers.schedule_free_sgd import ScheduleFreeSGD
from core.recipe.optimizers.sgd import SGD
from tests.train.runs import Train, Watcher, digests, job

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TABLE = DataFacts(examples=40, input_shape=(6,), task="classification", outputs=3)
PICTURES = DataFacts(examples=40, input_shape=(1, 8, 8), task="classification", outputs=3)
LINE = DataFacts(examples=40, input_shape=(6,), task="regression", outputs=1)
NORMED = {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.1}


def part(facts: DataFacts) -> TensorSplit:
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(facts.examples, *facts.input_shape, generator=generator)
    if facts.classes:
        return TensorSplit(inputs, torch.randint(facts.outputs, (facts.examples,), generator=generator))
    return TensorSplit(inputs, torch.randn(facts.examples, facts.outputs, generator=generator))


def stepper(spec: Any, network: Network, data: TensorSplit, make_network: Any = None) -> Stepper:
    return build_stepper(spec, network, partial(EvalWeights, network, make_network, data, 20))


@pytest.mark.parametrize("spec", [ScheduleFreeSGD(), ScheduleFreeAdamW(lr=0.05)], ids=lambda s: s.name)
def test_x_is_what_the_library_evaluates_at(spec: Any) -> None:
    """The library's own eval() on a twin that made the same steps; the stepper's y has not moved meanwhile."""
    model, data = MLP(hidden=(8,), batch_norm=True), part(TABLE)
    make_network = partial(build_network, model, TABLE, 0, CPU)
    network, twin = make_network(), make_network()
    ours = stepper(spec, network, data, make_network)
    module, name = spec.import_string().split(":")
    theirs = getattr(__import__(module), name)([twin.weights], **spec.kwargs(), foreach=False)
    theirs.train()
    for each in (network, twin):
        again = partial(build_gradient(each, functional.cross_entropy), data.inputs, data.targets)
        for _ in range(5):
            again()
            if each is network:
                ours.step(spec.lr, again)
            else:
                theirs.step()
    y = network.weights.detach().clone()
    assert torch.equal(y, twin.weights)
    theirs.eval()
    shown = ours.eval_network()
    torch.testing.assert_close(shown.weights, twin.weights, rtol=0, atol=0)
    assert torch.equal(network.weights, y)
    reestimate_batch_norm(twin, data, 20)
    assert all(torch.equal(each, shown.tensors()[name]) for name, each in twin.tensors().items())


@pytest.mark.parametrize(
    "optimizer", [{"name": "schedule_free_sgd", "warmup_steps": 5}, {"name": "asgd", "t0": 6}], ids=str
)
def test_looking_at_the_mean_disturbs_nothing(run: Train, optimizer: dict[str, Any]) -> None:
    quiet, busy = (job(model=NORMED, optimizer=optimizer, evaluate={"every": every}) for every in ("1run", "1st"))
    (ending, one), (other_ending, other) = run(quiet), run(busy, checkpoint_seconds=0.0)
    assert digests(one.checkpoints()[24]) == digests(other.checkpoints()[24])
    assert ending.results == other_ending.results


def test_the_warm_up_of_a_schedule_free_run_is_seen(run: Train) -> None:
    _, watcher = run(job(optimizer={"name": "schedule_free_sgd", "lr": 1.0, "warmup_steps": 4}, steps=6, epochs=None))
    assert [lr for _, lr in watcher.series()["lr"]] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_mean_is_judged_saved_and_kept_as_the_best(run: Train) -> None:
    """Checkpoint and best weights hold x; y, another point, lies in the state."""
    spec = job(optimizer={"name": "schedule_free_sgd"}, early_stopping={"patience": 1000})
    _, watcher = run(spec, checkpoint_seconds=0.0)
    best = watcher.checkpoints("best")
    at_best = watcher.checkpoints()[max(best)]
    assert digests(best[max(best)])["weights"] == digests(at_best)["weights"]
    x = load_file(f"{at_best.folder}/weights.safetensors")
    y = load_file(f"{at_best.folder}/state.safetensors")["optimizer.trained.weights"]
    flat = torch.cat([each.reshape(-1) for name, each in x.items() if name.endswith(("weight", "bias"))])
    assert y.shape == flat.shape
    assert float((y - flat).abs().max()) > 1e-4


def test_asgd_shows_the_weights_until_there_is_a_mean(run: Train) -> None:
    """t0 = 10⁶ is never reached: plain steps, running statistics as they are."""
    _, watcher = run(job(model=NORMED, optimizer={"name": "asgd"}))
    last = watcher.checkpoints()[24]
    weights, state = (load_file(f"{last.folder}/{name}.safetensors") for name in ("weights", "state"))
    running = "dense_norm0.running_mean"
    assert torch.equal(weights[running], state[f"optimizer.trained.buffers.{running}"])


@pytest.mark.parametrize(
    ("spec", "facts", "expected"),
    [
        (MLP(hidden=(5, 4, 3)), TABLE, ["dense1.weight", "dense2.weight"]),
        (MLP(hidden=(5,)), TABLE, []),
        (MLP(hidden=(5, 4), batch_norm=True), TABLE, ["dense1.weight"]),
        (CNN(channels=(2, 3), hidden=(5, 4)), PICTURES, ["dense0.weight", "dense1.weight"]),
        (CNN(channels=(2,), hidden=()), PICTURES, []),
        (Logistic(), TABLE, []),
    ],
)
def test_hidden_matrices_by_hand(spec: Any, facts: DataFacts, expected: list[str]) -> None:
    network = build_network(spec, facts, 0, CPU)
    assert hidden_matrices(network.module, network.roles) == expected


def test_muon_says_which_weights_it_steps(run: Train) -> None:
    spec = job(model={"name": "mlp", "hidden": [8, 6]}, optimizer={"name": "muon"})
    _, watcher = run(spec)
    started = next(each for each in watcher.events if isinstance(each, Started))
    rest = ["dense0.weight", "dense0.bias", "dense1.bias", "output.weight", "output.bias"]
    assert started.environment["optimizer"] == {"muon": ["dense1.weight"], "adamw": rest}
    assert Log("info", "muon steps dense1.weight") in watcher.logs()


def test_muon_moves_a_hidden_matrix_along_something_orthogonal() -> None:
    """One step from b = 0.05 g (nesterov: a multiple of g): all singular values of the move lie about lr · √(A/B)."""
    network, data = build_network(MLP(hidden=(12, 24)), TABLE, 0, CPU), part(TABLE)
    gradient = build_gradient(network, functional.cross_entropy)
    before = network.module.get_parameter("dense1.weight").detach().clone()
    gradient(data.inputs, data.targets)
    stepper(Muon(weight_decay=0.0), network, data).step(0.01, partial(gradient, data.inputs, data.targets))
    move = (before - network.module.get_parameter("dense1.weight").detach()) / (0.01 * 2**0.5)
    values = torch.linalg.svdvals(move)
    assert 0.6 < float(values[0]) < 1.3
    assert float(values[2]) > 0.3  # three classes: the gradient has about that rank


def test_a_network_without_hidden_matrices_is_refused_by_the_engine_too() -> None:
    with pytest.raises(EngineError, match="hidden layers"):
        stepper(Muon(), build_network(Logistic(), TABLE, 0, CPU), part(TABLE))


def test_line_search_finds_the_least_squares_solution() -> None:
    """A convex problem whose minimum is known: the normal equations, solved by NumPy."""
    network, data = flatten(build_network(Logistic(), LINE, 0, CPU).module.double()), part(LINE)
    data = TensorSplit(data.inputs.double(), data.targets.double())
    gradient = build_gradient(network, functional.mse_loss)
    again = partial(gradient, data.inputs, data.targets)
    driver = stepper(LBFGS(line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0.0), network, data)
    for _ in range(3):
        again()
        driver.step(1.0, again)
    table = np.hstack([data.inputs.numpy(), np.ones((40, 1))])
    solution = np.linalg.lstsq(table, data.targets.numpy(), rcond=None)[0].ravel()
    np.testing.assert_allclose(network.weights.detach().numpy(), solution, rtol=1e-7, atol=1e-9)


def test_evaluations_of_one_step_are_of_one_function() -> None:
    """With dropout and batch norm L-BFGS sees the same masks each time; statistics and randomness are one pass's."""
    network, data = build_network(MLP(hidden=(8,), batch_norm=True, dropout=0.5), TABLE, 0, CPU), part(TABLE)
    gradient = build_gradient(network, functional.cross_entropy)
    losses: list[float] = []

    def again() -> torch.Tensor:
        losses.append(float(gradient(data.inputs, data.targets)))
        return torch.tensor(losses[-1])

    gradient(data.inputs, data.targets)
    buffers = [each.clone() for each in network.module.buffers()]
    randomness = torch.default_generator.get_state()
    stepper(LBFGS(line_search_fn="strong_wolfe", max_iter=8), network, data).step(1.0, again)
    assert len(losses) > 5
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(*pair) for pair in zip(network.module.buffers(), buffers, strict=True))
    assert torch.equal(torch.default_generator.get_state(), randomness)
    assert all(layer.track_running_stats for layer in network.module.modules() if isinstance(layer, nn.BatchNorm1d))


def momenta(driver: Any) -> list[float | None]:
    optimizers = [driver.optimizer] if hasattr(driver, "optimizer") else [p.optimizer for p in driver.parts.values()]
    return [group.get("momentum", group.get("betas", (None,))[0]) for each in optimizers for group in each.param_groups]


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "nadam", "muon", "adagrad"])
def test_momentum_can_be_set_for_a_step(name: str) -> None:
    """It replaces momentum, or the first of the betas; where there is neither nothing happens."""
    options = {"momentum": 0.9} if name in {"sgd", "rmsprop"} else {}
    spec: Any = component_classes("optimizers")[name].model_validate_json("{}").model_copy(update=options)
    network, data = build_network(MLP(hidden=(8, 8)), TABLE, 0, CPU), part(TABLE)
    driver = stepper(spec, network, data)
    before = momenta(driver)
    gradient = build_gradient(network, functional.cross_entropy)
    again = partial(gradient, data.inputs, data.targets)
    again()
    driver.step(1e-3, again)
    assert momenta(driver) == before
    driver.step(1e-3, again, 0.5)
    assert momenta(driver) == [None if each is None else 0.5 for each in before]


def test_a_state_of_any_shape_comes_back_bit_for_bit() -> None:
    """Lists, counters, text, numbers that are none, transposed memory: all that optimizers keep, and more."""
    weight = nn.Parameter(torch.zeros(3))
    first, second = torch.optim.SGD([weight]), torch.optim.SGD([weight])
    turned = torch.arange(6.0).reshape(2, 3).t()
    kept = {"list": [torch.ones(2), None, 3], "pair": (0.1, True), "turned": turned, "text": "é", "worst": float("inf")}
    first.state[weight] = kept
    first.state["whole"] = {"k": torch.tensor(7)}  # type: ignore[index]
    first.param_groups[0]["d"] = 1e-300
    found = {name: each.clone() for name, each in state_dict.pack_state({"sgd": first}, "optimizer.").items()}
    state_dict.unpack_state(found, "optimizer.", {"sgd": second})
    again = second.state[weight]
    assert again["pair"] == (0.1, True)
    assert again["turned"].stride() == turned.stride()
    assert torch.equal(again["turned"], turned)
    assert (again["list"][1:], again["text"], again["worst"]) == ([None, 3], "é", float("inf"))
    assert second.param_groups[0]["d"] == 1e-300
    assert state_dict.pack_state({"sgd": second}, "optimizer.").keys() == found.keys()
    outlines = state_dict.expected_state(found, "optimizer.", ["sgd"])
    assert {name: (each.shape, each.dtype) for name, each in outlines.items()} == {
        name: (each.shape, each.dtype) for name, each in found.items()
    }
    first.state[weight]["list"] = [object()]
    with pytest.raises(TypeError, match=r"list\.0 is a object"):
        state_dict.pack_state({"sgd": first}, "optimizer.")


def test_a_worker_without_the_package_says_so(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    ending, _ = run(job(optimizer={"name": "pytorch_optimizer", "optimizer": "lion", "lr": 1e-3}))
    assert ending.outcome == "failed"
    assert ending.error is not None
    assert ending.error["code"] == "engine_error"
    assert "pytorch_optimizer" in ending.error["message"]
    assert "basin-server[optim]" in ending.error["remedy"]


def test_an_option_out_of_the_librarys_range_ends_in_its_words(run: Train) -> None:
    options = {"betas": [0.9, 1.5]}
    ending, _ = run(job(optimizer={"name": "pytorch_optimizer", "optimizer": "lion", "lr": 1e-3, "options": options}))
    assert ending.error is not None
    assert (ending.outcome, ending.error["code"]) == ("failed", "engine_error")
    assert "pytorch_optimizer refuses its options" in ending.error["message"]


def test_a_checkpoint_of_another_optimizer_is_refused(run: Train) -> None:
    _, first = run(job(optimizer={"name": "adafactor"}), Watcher(stop_after=5))
    for name in ("lbfgs", "adam"):
        full = {"batch_size": "full", "epochs": 24} if name == "lbfgs" else {}
        ending, _ = run(job(optimizer={"name": name}, **full), resume=first.checkpoints()[5])
        assert ending.error is not None
        assert ending.error["code"] == "engine_error"


@pytest.mark.parametrize(
    "spec", [Adafactor(weight_decay=0.5), PytorchOptimizer(optimizer="lion", lr=0.1, options={"weight_decay": 0.5})]
)
def test_biases_can_be_spared_by_shaped_optimizers(spec: Any) -> None:
    """Without a gradient only decay moves a weight."""
    network = build_network(MLP(hidden=(8,)), TABLE, 0, CPU, ("bias",))
    before = {name: each.detach().clone() for name, each in network.module.named_parameters()}
    network.gradient.zero_()
    stepper(spec, network, part(TABLE)).step(0.1, lambda: torch.zeros(()))
    moved = {name for name, each in network.module.named_parameters() if not torch.equal(each, before[name])}
    assert moved == {"dense0.weight", "output.weight"}


def test_flat_optimizers_stay_on_one_tensor() -> None:
    """The fast way: one parameter for one fused update, however many layers there are."""
    network = build_network(MLP(hidden=(8, 8)), TABLE, 0, CPU)
    driver: Any = stepper(SGD(momentum=0.9), network, part(TABLE))
    assert [each.data_ptr() for each in driver.parts] == [network.weights.data_ptr()]
    assert driver.optimizer.param_groups[0]["fused"]
