"""The base classes of all parts of a job spec."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from core.errors import FieldProblem

LARGEST = 1e36  # weights are float32, whose largest number is 3.4e38: torch raises where a factor does not fit
Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Spec(BaseModel):
    """Immutable data. Types are strict ("0.1" is not a number, true is not 1); unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        ser_json_inf_nan="strings",
        serialize_by_alias=True,
    )

    def dump(self) -> dict[str, Any]:
        """This spec as JSON values, with every field."""
        return self.model_dump(mode="json")


DEFERRED: Final = ConfigDict(defer_build=True)
"""For a class with a union that plug-ins join: its schema is built at its first use, not when it is imported."""


class Component(Spec):
    """An optimizer, schedule, model or dataset. `name` selects it from its union.

    A new component is a new file in the folder of its kind and one line in the `__init__` of that folder; the catalog,
    the OpenAPI document and the contract tests find it there.
    """

    summary: ClassVar[str]
    paper: ClassVar[str | None] = None
    name: str

    def unknown_name(self) -> FieldProblem | None:
        """The problem of a stored name that this release does not have, in a field whose type is any string."""
        return None


CROSS_FIELD = "cross_field"


def cross_field_error(*problems: FieldProblem) -> PydanticCustomError:
    """The error of a validator for fields that contradict each other; pointers are relative to the validated object."""
    return PydanticCustomError(CROSS_FIELD, "the fields do not fit together", {"problems": problems})


@dataclass(frozen=True, slots=True)
class SpecWarning:
    """A combination that is allowed and probably not intended."""

    code: str
    pointer: str
    message: str


def expand_switch(value: object) -> object:
    """For a field that is a spec or null: true means a spec of all defaults, false means null."""
    if value is True:
        return {}
    return None if value is False else value


def refuse_boolean(value: object) -> object:
    """Before a Literal of numbers, for which true counts as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "must be a number, not true or false")
    return value
