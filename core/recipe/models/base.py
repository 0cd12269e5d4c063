"""A model is a spec and an import string of a builder: build(spec, facts) -> any torch.nn.Module.

The builder may lie anywhere that the worker imports from; the spec never imports it. Where the roles of parameters do
not follow from the layers it returns them too, see core/engine/networks/builders.py.
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
    """How weights start. `torch` is each layer's own default; biases of the other schemes start at 0.

    The seed is the job's unless given here.
    """

    scheme: Literal[
        "torch", "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal", "zeros"
    ] = "torch"
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class ModelSpec(Component):
    """Fields say the shape; inputs and outputs follow from the data."""

    implementation: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = ("classification", "regression")
    filters: ClassVar[bool] = True
    """Whether each weight with two or more axes has its outputs along the first: then its slices there are filters."""
    init: Init = Init()

    @abstractmethod
    def parameter_count(self, facts: DataFacts) -> int:
        """How many weights it has on such data."""

    def multiply_adds(self, facts: DataFacts) -> int:
        """What one example costs on its way forward, about."""
        return self.parameter_count(facts)

    @property
    def normalises_batches(self) -> bool:
        """Whether a batch of one example has no statistics to normalise by."""
        return False

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of the weights whose way is a series each; none for a network."""
        return ()

    @property
    def hidden_matrices(self) -> int:
        """How many hidden layers have a matrix of weights: linear ones, neither the first nor the last with weights."""
        return 0

    def problems(self, facts: DataFacts) -> Iterator[FieldProblem]:
        """What does not fit together; pointers are relative to the model."""
        return iter(())
