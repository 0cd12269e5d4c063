"""Data that a user has uploaded, as a part of a job."""

import json
from typing import Annotated, ClassVar, Literal, Never

from pydantic import BeforeValidator, Field, ValidationError

from core.errors import FieldProblem, InvalidSpec
from core.recipe.data.augment import Augmentation
from core.recipe.data.base import DataSpec, SplitSizes
from core.recipe.data.columns import Categories, Features, Numbers
from core.recipe.data.resolved import ResolvedDataset
from core.recipe.data.split import ColumnName, Split
from core.recipe.data.tokens import Tokenizer
from core.recipe.facts import DataFacts


def _drop_unreadable(value: object) -> object:
    """None for what is not a ResolvedDataset: a request's own is ignored, whatever it holds."""
    if not isinstance(value, dict):
        return value if isinstance(value, ResolvedDataset) else None
    try:
        return ResolvedDataset.model_validate_json(json.dumps(value))
    except ValidationError:
        return None


Resolved = Annotated[
    ResolvedDataset | None, BeforeValidator(_drop_unreadable), Field(json_schema_extra={"readOnly": True})
]


class Dataset(DataSpec):
    """An uploaded dataset by its id or its name; a name means the newest one that is ready when the job is submitted.

    A table needs `target`: a category or a boolean is a classification, a number a regression, except that a number
    with the two values 0 and 1 is a classification. The classes of a category are in the order of their names by code
    point, those of a boolean are false and true, those of whole numbers ascend. Images have the classes of their
    folders. Without `split` the parts of the upload are used, if it has any; else text is split by `tail`, and anything
    else at random. `standardize` false leaves inputs and targets in their own units.
    """

    summary: ClassVar[str] = "Your own data: a table, images, arrays or a text that was uploaded."
    name: Literal["dataset"] = "dataset"
    dataset: Annotated[str, Field(min_length=1, max_length=200)]
    target: ColumnName | None = None
    task: Literal["classification", "regression", "language_model"] | None = None
    features: Features | None = None
    split_by: Annotated[Split | None, Field(alias="split")] = None
    numbers: Numbers | None = None
    categories: Categories | None = None
    augment: Annotated[tuple[Augmentation, ...], Field(max_length=16)] = ()
    shuffle: Literal["full", "blocks"] = "full"
    context: Annotated[int, Field(ge=1, le=2**20)] | None = None
    tokenizer: Tokenizer | None = None
    resolved: Resolved = None

    def facts(self) -> DataFacts:
        return self._looked_up().facts()

    def split(self, facts: DataFacts | None = None) -> SplitSizes:
        del facts  # its split may follow from its rows
        return self._looked_up().split()

    def content_fields(self) -> Never:
        """Raises TypeError: a prepared dataset has a version, and is not made from its fields."""
        raise TypeError("an uploaded dataset is not made from its fields")

    def _looked_up(self) -> ResolvedDataset:
        if self.resolved is None:
            message = f"the dataset {self.dataset[:80]!r} has not been looked up"
            raise InvalidSpec(errors=(FieldProblem("/data/dataset", message),))
        return self.resolved
