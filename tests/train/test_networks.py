"""Networks of a test's own making go through the seam that the real ones use: a spec, and the builder that it names."""

import json
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer

from core.engine.analysis.directions import normalise_direction, random_direction
from core.engine.checkpoints.files import add_aliases, read_resume
from core.engine.datasets.resident import TensorSplit, load_resident
from core.engine.failure import EngineError
from core.engine.gradients.gradient import build_gradient
from core.engine.networks import norms
from core.engine.networks.builders import ModuleWithRoles, build_module
from core.engine.networks.network import Network, build_network
from core.engine.networks.roles import ParameterRole, hidden_matrices, infer_roles
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.stepper import build_stepper
from core.recipe.models.base import Init
from core.recipe.optimizers import adamw, muon, sgd
from core.recipe.spec import JobSpec
from tests.train import modules
from tests.train.modules import CPU, HIDDEN, PICTURES, ROLES, SPECS, ResidualSpec, doubled, examples, own_job
from tests.train.runs import Train, Watcher, as_resume, digests

pytestmark = pytest.mark.usefixtures("one_thread")
EVERY = pytest.mark.parametrize("name", SPECS)


@EVERY
def test_every_parameter_has_the_role_that_it_is_for(name: str) -> None:
    network = build_network(SPECS[name], PICTURES, 0, CPU)
    assert network.roles == ROLES[name]
    assert len(network.values) == SPECS[name].parameter_count(PICTURES)
    assert norms.mixes_batch(network.module) == SPECS[name].normalises_batches
    assert set(hidden_matrices(network.module, network.roles)) == HIDDEN[name]
    assert len(HIDDEN[name]) == SPECS[name].hidden_matrices


def groups(module: nn.Module, free: set[str], decay: float) -> list[dict[str, Any]]:
    """Two parameter groups as anybody would write them for torch, from roles written by hand."""
    named = dict(module.named_parameters())
    return [
        {"params": [each for name, each in named.items() if name not in free], "weight_decay": decay},
        {"params": [each for name, each in named.items() if name in free], "weight_decay": 0.0},
    ]


def second_network(name: str, network: Network) -> Callable[[], EvalWeights]:
    """Where weights that are judged and not trained would stand."""
    return partial(EvalWeights, network, partial(doubled, name), TensorSplit(*examples()), 20)


REFERENCES: dict[str, tuple[Any, Callable[..., Optimizer]]] = {
    "sgd": (sgd.SGD(lr=0.1, momentum=0.9, weight_decay=0.5), partial(SGD, lr=0.1, momentum=0.9)),
    "adamw": (adamw.AdamW(lr=0.01, eps=1e-3, weight_decay=0.5), partial(AdamW, lr=0.01, eps=1e-3)),
}


@EVERY
@pytest.mark.parametrize("optimizer", REFERENCES)
@pytest.mark.parametrize("kinds", [("bias", "norm"), ("norm",), ("bias",)], ids="+".join)
def test_no_decay_is_two_parameter_groups_of_torch(name: str, optimizer: str, kinds: tuple[str, ...]) -> None:
    """Every norm layer's scale stays out of weight decay, and its shift, which is a bias too."""
    network, (inputs, targets) = doubled(name, kinds), examples()
    spec, make = REFERENCES[optimizer]
    plain = deepcopy(network.module).train()
    roles = ROLES[name]
    free = {each for each, role in roles.items() if role in kinds}
    free |= {each for each, role in roles.items() if "bias" in kinds and role == "norm" and each.endswith(".bias")}
    reference = make(groups(plain, free, spec.weight_decay))
    network.module.train()
    gradient = build_gradient(network, functional.cross_entropy)
    stepper = build_stepper(spec, network, second_network(name, network))
    for _ in range(5):
        gradient(inputs, targets)
        stepper.step(spec.lr, partial(gradient, inputs, targets))
        reference.zero_grad()
        functional.cross_entropy(plain(inputs), targets).backward()  # type: ignore[no-untyped-call]
        reference.step()
    for parameter, expected in plain.named_parameters():
        found = network.module.get_parameter(parameter)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12, msg=parameter)
    assert network.undecayed == sum(network.module.get_parameter(each).numel() for each in free)


@pytest.mark.parametrize("name", ["transformer", "gated"])
def test_muon_steps_the_matrices_between_embedding_and_head(name: str) -> None:
    network = doubled(name)
    stepper = build_stepper(muon.Muon(), network, second_network(name, network))
    parts = {part: set(names) for part, names in stepper.parameter_roles().items()}
    assert parts == {"muon": HIDDEN[name], "adamw": set(ROLES[name]) - HIDDEN[name]}


def test_muon_refuses_a_network_of_kernels() -> None:
    network = doubled("residual")
    with pytest.raises(EngineError, match="this network has none"):
        build_stepper(muon.Muon(), network, second_network("residual", network))


@EVERY
def test_a_scheme_fills_matrices_and_kernels_and_nothing_else(name: str) -> None:
    drawn = build_network(SPECS[name], PICTURES, 0, CPU)
    filled = build_network(SPECS[name].model_copy(update={"init": Init(scheme="orthogonal")}), PICTURES, 0, CPU)
    for parameter, role in ROLES[name].items():
        before, after = (each.module.get_parameter(parameter).detach() for each in (drawn, filled))
        if role == "bias":
            assert not after.any()
        elif role in {"matrix", "conv", "head"}:
            rows = after.flatten(1)
            small = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
            torch.testing.assert_close(small, torch.eye(len(small)), rtol=0, atol=1e-5)
        else:
            assert torch.equal(before, after), parameter


@EVERY
@pytest.mark.parametrize("ignore", ["biasbn", "nothing"])
def test_a_filter_normalised_direction_is_that_of_a_loop(name: str, ignore: Any) -> None:
    """One filter after the other; a weight that layers share is there once."""
    network = doubled(name)
    with torch.no_grad():
        network.weights.add_(torch.randn(len(network.weights), generator=torch.Generator().manual_seed(1)), alpha=0.1)
    drawn = random_direction(network, 0, 0)
    found, start = normalise_direction(network, drawn, "filter", ignore), 0
    for parameter, trainable in network.module.named_parameters():
        role, own = ROLES[name][parameter], trainable.detach()
        piece = drawn[start : start + own.numel()].view(own.shape).clone()
        if role in {"bias", "norm"}:
            expected = torch.zeros_like(piece) if ignore == "biasbn" else piece * own.norm() / piece.norm()
        else:
            rows = own.flatten(0, -2) if role == "position" else own
            pieces = piece.flatten(0, -2) if role == "position" else piece
            expected = torch.stack([a * b.norm() / a.norm() for a, b in zip(pieces, rows, strict=True)])
        torch.testing.assert_close(found[start : start + own.numel()], expected.flatten(), rtol=1e-12, atol=0)
        start += own.numel()
    assert start == len(found)


OTHERS: dict[str, Any] = {
    "swa": {"start": "1ep", "every": "2st", "swag": {"samples": 2}},
    "ema": {"with_swa": True},
    "early_stopping": {"patience": 50},
    "rollback": True,
    "sam": True,
}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [(name, each) for name in SPECS for each in ("sgd", "adamw", "muon") if each != "muon" or HIDDEN[name]],
)
def test_a_resume_is_exact(run_own: Train, name: str, optimizer: str) -> None:
    placeholder = {"model": {"name": "mlp", "hidden": [4, 4]}}  # the check at the door knows models of the union only
    spec = own_job(name, **placeholder, optimizer={"name": optimizer, "lr": 0.02, "weight_decay": 0.01}, **OTHERS)
    ending, whole = run_own(spec)
    _, first = run_own(spec, Watcher(stop_after=11))
    again, second = run_own(spec, resume=first.checkpoints()[11])
    assert ending.outcome == again.outcome == "succeeded"
    assert again.results == ending.results
    assert digests(second.checkpoints()[24]) == digests(whole.checkpoints()[24])
    for kind in ("swa", "ema"):
        assert digests(second.checkpoints(kind)[24]) == digests(whole.checkpoints(kind)[24])


def test_a_shared_weight_is_stored_once_and_loads_under_both_names(run_own: Train) -> None:
    _, watcher = run_own(own_job("transformer", optimizer={"name": "adamw", "lr": 0.02}))
    last = watcher.checkpoints()[24]
    stored, state = (load_file(f"{last.folder}/{role}.safetensors") for role in ("weights", "state"))
    manifest = json.loads(Path(last.folder, "manifest.json").read_text())
    assert manifest["aliases"] == {"head.weight": "embedding.weight"}
    assert "head.weight" not in stored
    assert len(state["optimizer.exp_avg"]) == SPECS["transformer"].parameter_count(PICTURES)
    plain = modules.Transformer(10, 0.0)
    plain.load_state_dict(add_aliases(stored, manifest))
    assert plain.head.weight is plain.embedding.weight
    assert torch.equal(plain.head.weight, stored["embedding.weight"])
    weights, _ = read_resume(as_resume(last))
    assert torch.equal(weights["head.weight"], weights["embedding.weight"])


def test_a_manifest_without_aliases_reads_as_before(run_own: Train) -> None:
    _, watcher = run_own(own_job("residual"))
    last = watcher.checkpoints()[24]
    assert "aliases" not in last.manifest
    stored = load_file(f"{last.folder}/weights.safetensors")
    assert add_aliases(stored, last.manifest).keys() == stored.keys()


def test_an_alias_of_nothing_is_refused() -> None:
    with pytest.raises(EngineError, match=r"lost\.weight"):
        add_aliases({"own.weight": torch.zeros(1)}, {"aliases": {"head.weight": "lost.weight"}})


def test_a_run_begins_with_the_shared_weights_of_another(run_own: Train) -> None:
    _, before = run_own(own_job("transformer"))
    last = before.checkpoints()[24]
    spec = own_job("transformer", optimizer={"name": "sgd", "lr": 1e-30}, epochs=1, no_decay=[])
    _, after = run_own(spec, initial=Path(last.folder, "weights.safetensors"))
    assert digests(after.checkpoints()[8])["weights"] == digests(last)["weights"]


def test_averaged_weights_get_statistics_of_their_own(run_own: Train, datasets: Any) -> None:
    """The batch norm inside a module of any shape: mean and variance of what comes in, batch by batch by hand."""
    spec = own_job("residual", swa={"start": "1ep"})
    _, watcher = run_own(spec, checkpoint_seconds=0.0)
    members = [load_file(f"{watcher.checkpoints()[step].folder}/weights.safetensors") for step in (8, 16, 24)]
    mean = load_file(f"{watcher.checkpoints('swa')[24].folder}/weights.safetensors")
    for parameter in ROLES["residual"]:
        expected = torch.stack([each[parameter].double() for each in members]).mean(0)
        torch.testing.assert_close(mean[parameter].double(), expected, rtol=1e-5, atol=1e-6)
    inputs = train_inputs(spec, datasets)
    coming = functional.conv2d(inputs, mean["stem.weight"].double(), mean["stem.bias"].double(), padding=1)
    batches = torch.split(coming, 24)
    for statistic, of in (("running_mean", _mean_of), ("running_var", _variance_of)):
        expected = torch.stack([of(each) * len(each) for each in batches]).sum(0) / len(inputs)
        torch.testing.assert_close(mean[f"stem_norm.{statistic}"].double(), expected, rtol=1e-4, atol=1e-5)


def _mean_of(batch: Tensor) -> Tensor:
    return batch.mean((0, 2, 3))


def _variance_of(batch: Tensor) -> Tensor:
    return batch.var((0, 2, 3), correction=1)


def train_inputs(spec: JobSpec, datasets: Any) -> Tensor:
    return load_resident(spec.data, datasets(spec.data), CPU).train.inputs.double()


class Overlapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.ones(2, 2))
        self.second = nn.Parameter(self.first.data)


def frozen() -> nn.Module:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    return module


BROKEN: dict[str, tuple[Callable[[], nn.Module | ModuleWithRoles], str]] = {
    "no parameters": (nn.Flatten, "no parameters"),
    "frozen": (frozen, "bias need no gradient"),
    "types": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), "several types"),
    "memory": (Overlapping, "first and second are two parameters in the same memory"),
    "role": (lambda: ModuleWithRoles(nn.Linear(2, 2), {"head": ParameterRole.HEAD}), "do not exist: head"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_trained_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make, message = BROKEN[name]
    monkeypatch.setattr(modules, "build_residual", lambda *_: make())
    with pytest.raises(EngineError, match=message):
        build_network(ResidualSpec(), PICTURES, 0, CPU)


@pytest.mark.parametrize("place", ["no.such.module:build", "tests.train.modules:no_such_function"])
def test_a_builder_that_is_not_installed_is_named(place: str) -> None:
    class Elsewhere(ResidualSpec):
        implementation: ClassVar[str] = place

    with pytest.raises(EngineError, match=place) as caught:
        build_module(Elsewhere(), PICTURES)
    assert caught.value.remedy.startswith("Install it")


def test_a_role_given_by_a_second_name_is_that_of_the_shared_weight() -> None:
    module = modules.Transformer(10, 0.0)
    assert infer_roles(module, {"head.weight": ParameterRole.HEAD})["embedding.weight"] == "head"


def test_weights_of_layers_that_torch_has_besides() -> None:
    """Attention's packed matrix, a table of relative positions, a class token, a factor, a recurrent layer."""
    module = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2, add_bias_kv=True), "recurrent": nn.GRU(4, 3)})
    module.register_parameter("relative_position_bias", nn.Parameter(torch.ones(9, 2)))
    module.register_parameter("token", nn.Parameter(torch.ones(1, 5, 4)))
    module.register_parameter("gamma", nn.Parameter(torch.ones(4)))
    module["output"] = nn.Linear(4, 2)
    roles = infer_roles(module)
    expected = {
        "relative_position_bias": "position",
        "token": "position",
        "gamma": "norm",
        "attention.in_proj_weight": "matrix",
        "attention.in_proj_bias": "bias",
        "attention.bias_k": "bias",
        "attention.bias_v": "bias",
        "attention.out_proj.weight": "matrix",
        "attention.out_proj.bias": "bias",
        "recurrent.weight_ih_l0": "matrix",
        "recurrent.weight_hh_l0": "matrix",
        "recurrent.bias_ih_l0": "bias",
        "recurrent.bias_hh_l0": "bias",
        "output.weight": "head",
        "output.bias": "bias",
    }
    assert roles == expected
