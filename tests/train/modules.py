"""Networks that the service does not have: models of a plug-in's making, with a builder outside of the tree."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.engine.networks.builders import ModuleWithRoles
from core.engine.networks.network import Network, build_network, flatten
from core.engine.networks.roles import ParameterRole
from core.recipe.facts import DataFacts
from core.recipe.models.base import ModelSpec
from core.recipe.spec import JobSpec
from tests.train.runs import job

WIDTH, PLACES = 8, 8
CPU = torch.device("cpu")
PICTURES = DataFacts(examples=40, input_shape=(1, 8, 8), task="classification", outputs=10)


class TransformerSpec(ModelSpec):
    """Two parameters count once: the head's weights are the embedding's."""

    summary: ClassVar[str] = "One block of attention over eight tokens; the head is the embedding."
    implementation: ClassVar[str] = "tests.train.modules:build_transformer"
    name: Literal["tiny_transformer"] = "tiny_transformer"
    dropout: float = 0.1

    def parameter_count(self, facts: DataFacts) -> int:
        norms, attention, inner = 2 * 2 * WIDTH, 4 * WIDTH * (WIDTH + 1), 2 * WIDTH * 2 * WIDTH + 3 * WIDTH
        return facts.outputs * WIDTH + PLACES * WIDTH + norms + attention + inner

    @property
    def hidden_matrices(self) -> int:
        return 4


class ResidualSpec(ModelSpec):
    """A residual block: batch norm, group norm and kernels, one after the other and beside each other."""

    summary: ClassVar[str] = "A small residual network."
    implementation: ClassVar[str] = "tests.train.modules:build_residual"
    name: Literal["tiny_residual"] = "tiny_residual"

    def parameter_count(self, facts: DataFacts) -> int:
        return 9 * 4 + 4 + 2 * 4 + 9 * 16 + 2 * 4 + 4 * facts.outputs + facts.outputs

    @property
    def normalises_batches(self) -> bool:
        return True


class GatedSpec(ModelSpec):
    """Its head is registered first, so that only the builder knows which it is."""

    summary: ClassVar[str] = "A gated block with RMS norm."
    implementation: ClassVar[str] = "tests.train.modules:build_gated"
    name: Literal["tiny_gated"] = "tiny_gated"

    def parameter_count(self, facts: DataFacts) -> int:
        return facts.outputs * WIDTH + facts.features * WIDTH + WIDTH + 3 * WIDTH * WIDTH

    @property
    def hidden_matrices(self) -> int:
        return 3


class Transformer(nn.Module):
    """Tokens are the sums of a picture's rows."""

    def __init__(self, vocabulary: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        self.position = nn.Parameter(0.1 * torch.randn(1, PLACES, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.Linear(WIDTH, 3 * WIDTH)
        self.mixing = nn.Linear(WIDTH, WIDTH)
        self.inner_norm = nn.LayerNorm(WIDTH)
        self.inner = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, vocabulary)."""
        tokens = inputs.flatten(1).unflatten(1, (PLACES, -1)).sum(2).abs().long() % len(self.embedding.weight)
        values = self.embedding(tokens) + self.position  # (batch, places, width)
        heads = self.attention(self.norm(values)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*heads)  # (batch, heads, places, width // heads)
        values = values + self.dropout(self.mixing(attended.transpose(1, 2).flatten(2)))
        values = values + self.inner(self.inner_norm(values))
        outputs: Tensor = self.head(values.mean(1))
        return outputs


class Residual(nn.Module):
    """conv, batch norm, then conv and group norm around which the input goes too."""

    def __init__(self, planes: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(planes, 4, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.group_norm = nn.GroupNorm(2, 4)
        self.output = nn.Linear(4, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, planes, height, width) -> (batch, outputs)."""
        values = functional.relu(self.stem_norm(self.stem(inputs)))
        values = values + functional.relu(self.group_norm(self.conv(values)))
        outputs: Tensor = self.output(values.mean((2, 3)))
        return outputs


class Gated(nn.Module):
    """x + down(silu(gate(n)) * up(n)), n = RMS norm of x."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(WIDTH, outputs, bias=False)
        self.stem = nn.Linear(features, WIDTH, bias=False)
        self.norm = nn.RMSNorm(WIDTH)
        self.gate, self.up, self.down = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, *shape) -> (batch, outputs)."""
        values = self.stem(inputs.flatten(1))
        normed = self.norm(values)
        values = values + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        outputs: Tensor = self.classifier(values)
        return outputs


def build_transformer(spec: TransformerSpec, facts: DataFacts) -> nn.Module:
    return Transformer(facts.outputs, spec.dropout)


def build_residual(spec: ResidualSpec, facts: DataFacts) -> nn.Module:
    del spec
    return Residual(facts.input_shape[0], facts.outputs)


def build_gated(spec: GatedSpec, facts: DataFacts) -> ModuleWithRoles:
    del spec
    roles = {"classifier.weight": ParameterRole.HEAD, "stem.weight": ParameterRole.EMBEDDING}
    return ModuleWithRoles(Gated(facts.features, facts.outputs), roles)


SPECS: dict[str, ModelSpec] = {
    "transformer": TransformerSpec(),
    "residual": ResidualSpec(),
    "gated": GatedSpec(),
}
ROLES: dict[str, dict[str, str]] = {
    "transformer": {
        "position": "position",
        "embedding.weight": "embedding",
        "norm.weight": "norm",
        "norm.bias": "norm",
        "attention.weight": "matrix",
        "attention.bias": "bias",
        "mixing.weight": "matrix",
        "mixing.bias": "bias",
        "inner_norm.weight": "norm",
        "inner_norm.bias": "norm",
        "inner.0.weight": "matrix",
        "inner.0.bias": "bias",
        "inner.2.weight": "matrix",
        "inner.2.bias": "bias",
    },
    "residual": {
        "stem.weight": "conv",
        "stem.bias": "bias",
        "stem_norm.weight": "norm",
        "stem_norm.bias": "norm",
        "conv.weight": "conv",
        "group_norm.weight": "norm",
        "group_norm.bias": "norm",
        "output.weight": "head",
        "output.bias": "bias",
    },
    "gated": {
        "classifier.weight": "head",
        "stem.weight": "embedding",
        "norm.weight": "norm",
        "gate.weight": "matrix",
        "up.weight": "matrix",
        "down.weight": "matrix",
    },
}
HIDDEN = {
    "transformer": {"attention.weight", "mixing.weight", "inner.0.weight", "inner.2.weight"},
    "residual": set[str](),
    "gated": {"gate.weight", "up.weight", "down.weight"},
}


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = 8 * torch.rand(40, 1, 8, 8, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(10, (40,), generator=generator)


def doubled(name: str, no_decay: tuple[Any, ...] = ()) -> Network:
    """In double precision, so that a reference may add up in another order; without dropout."""
    spec = SPECS[name].model_copy(update={"dropout": 0.0} if name == "transformer" else {})
    built = build_network(spec, PICTURES, 0, CPU)
    return flatten(built.module.double(), no_decay, built.roles)


def own_job(name: str, **fields: Any) -> JobSpec:
    data = {"name": "digits", "validation": 0.1, "test": 0.8, "standardize": name != "transformer"}
    decay = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    spec = job(**{"data": data, "optimizer": decay, "no_decay": ["bias", "norm"]} | fields)
    return spec.model_copy(update={"model": SPECS[name]})
