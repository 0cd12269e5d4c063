"""A model is a spec and an import string of a builder: build(spec, facts) -> any torch.nn.Module.

The builder may be in any module that the worker can import; the spec never imports it. Where the roles of parameters do
not follow from the layers, the builder returns them too, see core/engine/networks/builders.py.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.component import Component, Fraction, Spec
from core.recipe.facts import DataFacts, Task

Activation = Literal["relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu"]
Width = Annotated[int, Field(ge=1, le=65_536)]
Dropout = Fraction


class Init(Spec):
    """The initialisation of weights. `torch` is each layer's default; biases of the other schemes are 0.

    The seed is the job's unless given here.
    """

    scheme: Literal[
        "torch", "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal", "zeros"
    ] = "torch"
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class ModelSpec(Component):
    """The fields determine the hidden layers; inputs and outputs follow from the data."""

    implementation: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = ("classification", "regression")
    filters: ClassVar[bool] = True
    """Whether the first axis of each weight with two or more axes is its outputs, so that its slices are filters."""
    embeds: ClassVar[bool] = False
    """Whether it takes inputs whose last columns are codes, as `facts.cardinalities` says."""
    init: Init = Init()

    @abstractmethod
    def parameter_count(self, facts: DataFacts) -> int:
        """The number of parameters for data with these facts."""

    def multiply_adds(self, facts: DataFacts) -> int:
        """The approximate number of multiply-adds in the forward pass of one example."""
        return self.parameter_count(facts)

    @property
    def normalises_batches(self) -> bool:
        """Whether it has batch norm, which cannot normalise a batch of one example."""
        return False

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of the weights that are reported as a series each; none for a network."""
        return ()

    @property
    def hidden_matrices(self) -> int:
        """The number of linear layers between the first and the last layer with weights."""
        return 0

    def count_hidden_matrices(self, facts: DataFacts) -> int:
        """As hidden_matrices; where the model embeds codes, the tables are the first layer with weights."""
        return self.hidden_matrices + bool(facts.cardinalities)

    def problems(self, facts: DataFacts) -> Iterator[FieldProblem]:
        """Fields that do not fit the data or each other; pointers are relative to the model."""
        return iter(())
