"""A dataset is a name, its facts, and how it is split. The facts are known without the data, so an API can plan."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from core.recipe.component import Component, Fraction
from core.recipe.facts import DataFacts

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class SplitSizes:
    train: int
    validation: int
    test: int


def split_sizes(examples: int, validation: float, test: float) -> SplitSizes:
    """Shares of all examples, rounded half up; the rest trains."""
    of_test = int(examples * test + 0.5)
    of_validation = int(examples * validation + 0.5)
    return SplitSizes(examples - of_test - of_validation, of_validation, of_test)


class DataSpec(Component):
    """The split is stratified for classes and seeded by `split_seed`. Standardisation is fitted on the train part.

    `label_noise` gives that share of the train examples, rounded half up and picked by `split_seed`, a wrong class
    each; validation and test keep the true ones.
    """

    validation: Fraction = 0.1
    test: Fraction = 0.2
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    standardize: bool = True
    label_noise: Fraction = 0.0

    @abstractmethod
    def facts(self) -> DataFacts:
        """Sizes and kind, known without reading the data."""

    def split(self) -> SplitSizes:
        return split_sizes(self.facts().examples, self.validation, self.test)

    @property
    def judged_on(self) -> Literal["val", "function"]:
        """The series of the periodic evaluations: of the validation part, or of a function itself."""
        return "val"

    def content_fields(self) -> dict[str, Any]:
        """The fields that decide what stands in the dataset's file, as JSON values; how it is split is none of them."""
        written = self.model_dump(mode="json", exclude={"name"})
        return {field: value for field, value in written.items() if field not in DataSpec.model_fields}


class SyntheticData(DataSpec):
    """Data that its own fields make: nobody else's file is read."""

    @abstractmethod
    def generate_arrays(self) -> "dict[str, Array]":
        """`inputs` and `targets` as its facts say; the same on every machine."""
