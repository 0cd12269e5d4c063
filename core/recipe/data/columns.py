"""Which columns of a table are features, and how numbers and categories become inputs."""

import json
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.component import Spec, cross_field_error
from core.recipe.data.split import ColumnName

MOST_COLUMNS: Final = 4096
LONGEST_NAME: Final = 80
MOST_ONE_HOT: Final = 16
"""`auto` encodes a category with more kept values as codes."""

ColumnNames = Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=MOST_COLUMNS)]


def show_name(name: str) -> str:
    """A name that a user has chosen, in a message: quoted, at most 80 characters, without control characters."""
    return json.dumps(
        name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…", ensure_ascii=not name.isprintable()
    )


class Features(Spec):
    """The columns that the model sees: those of `include`, or all but those of `exclude`.

    The target, a text, and the column of a split are never features.
    """

    include: ColumnNames | None = None
    exclude: ColumnNames | None = None

    @model_validator(mode="after")
    def one_list(self) -> Self:
        if (self.include is None) == (self.exclude is None):
            raise cross_field_error(FieldProblem("", "give either include or exclude", 'as in {"exclude": ["rowid"]}'))
        return self


class Numbers(Spec):
    """Numbers, booleans (0 or 1) and the parts of dates: what replaces a missing value, then the scale.

    Both are fitted on the train part. `standard` is (x - mean) / std, `quantile` the normal quantile of the rank, and
    `none` leaves values as they are. A column with missing values also gives an input that is 1 where a value is
    missing.
    """

    scale: Literal["standard", "quantile", "none"] = "standard"
    missing: Literal["median", "mean", "zero"] = "median"


class Categories(Spec):
    """`one_hot` is one input for each kept value; `embed` a code, for which the model learns a vector.

    `auto` is one_hot up to 16 kept values. Kept are the `max_categories` most frequent values that have at least
    `min_count` rows in the whole dataset. A value that is missing, not kept or not in the train part has code 0,
    and its one-hot inputs are all 0.
    """

    encode: Literal["auto", "one_hot", "embed"] = "auto"
    min_count: Annotated[int, Field(ge=1, le=10**9)] = 1
    max_categories: Annotated[int, Field(ge=1, le=10_000)] | None = None
