"""What a job keeps of the dataset that it was submitted with, so that no later check has to look it up."""

from typing import Literal

from pydantic import ConfigDict

from core.recipe.component import SpecWarning
from core.recipe.data.base import SplitSizes
from core.recipe.data.manifest import DatasetKind, StoredSpec
from core.recipe.facts import DataFacts, Task


class ReadOnlySpec(StoredSpec):
    """A part of a job that the service fills in. What a request has there is ignored."""

    model_config = ConfigDict(json_schema_extra={"readOnly": True})


class TableFeature(ReadOnlySpec):
    """Adjacent inputs of the model from one column.

    number   its `width` columns of the tensor `numbers`: one, or the four parts of a date
    missing  1 where the value is missing, else 0
    one_hot  entry j is 1 where the code is j + 1; `width` values are kept
    code     the code, 0 to `cardinality` - 1, which the model embeds
    """

    column: str
    form: Literal["number", "missing", "one_hot", "code"]
    width: int


class DatasetWarning(ReadOnlySpec):
    """A property of the data that is probably not intended; `pointer` is below the job."""

    code: str
    pointer: str
    message: str

    def as_warning(self) -> SpecWarning:
        return SpecWarning(self.code, self.pointer, self.message)


class ResolvedDataset(ReadOnlySpec):
    """Filled in by the service at submit; what a request gives here is ignored.

    `version` is the SHA-256 of the manifest. The inputs of a table are `features` side by side, in this order: all
    numbers, then all missing, all one_hot, all code. `cardinalities` has one entry for each code: the kept values and
    1. For tokens, an example is a window of `context` tokens.
    """

    dataset: str
    version: str
    kind: DatasetKind
    examples: int
    input_shape: tuple[int, ...]
    task: Task
    outputs: int
    train: int
    validation: int
    test: int
    cardinalities: tuple[int, ...] = ()
    features: tuple[TableFeature, ...] = ()
    vocabulary: int | None = None
    context: int | None = None
    warnings: tuple[DatasetWarning, ...] = ()

    def facts(self) -> DataFacts:
        return DataFacts(
            self.examples,
            self.input_shape,
            self.task,
            self.outputs,
            cardinalities=self.cardinalities,
            vocabulary=self.vocabulary,
            context=self.context,
        )

    def split(self) -> SplitSizes:
        return SplitSizes(self.train, self.validation, self.test)
