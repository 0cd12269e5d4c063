"""The bases of everything that a user can write into a job."""

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
    """Frozen data that says what to do. Strict types ("0.1" is no number, true is no 1); unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        ser_json_inf_nan="strings",
        serialize_by_alias=True,
    )

    def dump(self) -> dict[str, Any]:
        """This spec as JSON values, every field written out."""
        return self.model_dump(mode="json")


DEFERRED: Final = ConfigDict(defer_build=True)
"""For a class with a union that plug-ins join: its schema is built at its first use, not when it is imported."""


class Component(Spec):
    """One optimizer, schedule, averaging method, model or dataset. `name` picks it from its union.

    A new one is a new file beside its siblings and one line in their `__init__`; the catalog, the OpenAPI document and
    the contract tests find it from there.
    """

    summary: ClassVar[str]
    paper: ClassVar[str | None] = None
    name: str

    def unknown_name(self) -> FieldProblem | None:
        """A name in a stored spec that this release does not know, where the type of the field does not tell."""
        return None


CROSS_FIELD = "cross_field"


def cross_field_error(*problems: FieldProblem) -> PydanticCustomError:
    """What a validator raises when fields do not fit together; pointers are relative to the object it validates."""
    return PydanticCustomError(CROSS_FIELD, "the fields do not fit together", {"problems": problems})


@dataclass(frozen=True, slots=True)
class SpecWarning:
    """Something that is allowed and probably not meant."""

    code: str
    pointer: str
    message: str


def expand_switch(value: object) -> object:
    """For a field that is a spec or nothing: true means all defaults, false none."""
    if value is True:
        return {}
    return None if value is False else value


def refuse_boolean(value: object) -> object:
    """Before a Literal of numbers, for which true counts as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "must be a number, not true or false")
    return value
