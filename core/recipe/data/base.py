"""A dataset has a name, facts, and a split. The facts are known without reading the data, so that the api can plan."""

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
    """The sizes of the splits: shares of all examples, rounded half up; the rest is for training."""
    of_test = int(examples * test + 0.5)
    of_validation = int(examples * validation + 0.5)
    return SplitSizes(examples - of_test - of_validation, of_validation, of_test)


class DataSpec(Component):
    """The split is stratified by class and seeded by `split_seed`. Standardisation is fitted on the train split.

    `label_noise` is the share of train examples, rounded half up and chosen by `split_seed`, that get a wrong class;
    validation and test keep the true classes.
    """

    validation: Fraction = 0.1
    test: Fraction = 0.2
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    standardize: bool = True
    label_noise: Fraction = 0.0

    @abstractmethod
    def facts(self) -> DataFacts:
        """Sizes and task, known without reading the data."""

    def split(self, facts: DataFacts | None = None) -> SplitSizes:
        """The sizes of the parts; `facts` are its own, if the caller has them already."""
        return split_sizes((facts or self.facts()).examples, self.validation, self.test)

    @property
    def judged_on(self) -> Literal["val", "function"]:
        """The prefix of the evaluation series: the validation split, or the function itself."""
        return "val"

    def content_fields(self) -> dict[str, Any]:
        """The fields that determine the content of the dataset's file, as JSON values; the split is not one of them."""
        written = self.model_dump(mode="json", exclude={"name"})
        return {field: value for field, value in written.items() if field not in DataSpec.model_fields}


class SyntheticData(DataSpec):
    """Data that is generated from its own fields, without a file."""

    @abstractmethod
    def generate_arrays(self) -> "dict[str, Array]":
        """`inputs` and `targets` with the shapes of its facts; identical on every machine."""
