"""A duration with its unit: "10ep" epochs, "5000st" optimizer steps, "0.75run" a share of the run.

Conversion is exact (decimal fractions, no floats) and rounds half up to whole optimizer steps.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Unit = Literal["ep", "st", "run"]
UNITS: dict[str, Unit] = {"ep": "ep", "st": "st", "run": "run"}
PATTERN = r"^([0-9]{1,12}(?:\.[0-9]{1,12})?)(ep|st|run)$"
LONGEST = 10**12  # optimizer steps; far beyond any run, small enough for every integer column


@dataclass(frozen=True, slots=True)
class RunLength:
    """The length of a run: optimizer steps in one epoch, and in total. Both are at least 1.

    A run that only a time limit ends is not `bounded`, and `total_steps` is more than any run takes.
    """

    steps_per_epoch: int
    total_steps: int
    bounded: bool = True

    @property
    def epochs(self) -> float:
        """Epochs in the run; a run bounded by steps may end inside one."""
        return self.total_steps / self.steps_per_epoch


class Duration(NamedTuple):
    """An amount with its unit. `steps(run)` gives its optimizer steps in a given run.

    A tuple, not a dataclass: pydantic would write a dataclass's fields into JSON Schema defaults, not "1ep".
    """

    amount: Fraction
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "10ep", "5000st" or "0.75run".

        Raises:
            ValueError: the text is not a duration; the message gives the accepted forms.
        """
        found = re.match(PATTERN, text)
        if found is None or found.end() != len(text):
            raise ValueError(
                f'{text[:40]!r} is not a duration: write epochs "10ep", steps "5000st" or a share "0.75run"'
            )
        amount, unit = Fraction(found[1]), UNITS[found[2]]
        if unit == "st" and amount.denominator != 1:
            raise ValueError("optimizer steps are whole numbers")
        if unit == "run" and amount > 1:
            raise ValueError('a share of the run is at most "1run"')
        if amount > LONGEST:
            raise ValueError(f"longer than {LONGEST} is not supported")
        return cls(amount, unit)

    @classmethod
    def read(cls, stored: str | int) -> Self:
        """A duration that an earlier release accepted, without the checks of `parse`.

        Raises:
            ValueError: it is not a duration.
        """
        if isinstance(stored, int):
            return cls.of_steps(stored)
        found = re.fullmatch(PATTERN, stored)
        if found is None:
            raise ValueError("not a duration")
        return cls(Fraction(found[1]), UNITS[found[2]])

    @classmethod
    def of_steps(cls, steps: int) -> Self:
        return cls(Fraction(steps), "st")

    def steps(self, run: RunLength) -> int:
        """The duration in optimizer steps of a run, rounded half up to a whole number."""
        scale = {"st": 1, "ep": run.steps_per_epoch, "run": run.total_steps}[self.unit]
        return int(self.amount * scale + Fraction(1, 2))

    def __str__(self) -> str:
        whole, rest = divmod(self.amount, 1)
        digits = f"{rest.numerator * 10**12 // rest.denominator:012d}".rstrip("0")
        return f"{whole}.{digits}{self.unit}" if digits else f"{whole}{self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validate_duration, serialization=core_schema.to_string_ser_schema(when_used="always")
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "anyOf": [{"type": "string", "pattern": PATTERN}, {"type": "integer", "minimum": 0, "maximum": LONGEST}],
            "description": 'Epochs "10ep", optimizer steps "5000st" (or a bare integer), or a share "0.75run".',
            "examples": ["10ep", "5000st", "0.75run"],
        }


def _validate_duration(value: object) -> Duration:
    if isinstance(value, Duration):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= LONGEST:
            raise PydanticCustomError("duration", "a number of optimizer steps lies between 0 and 10^12")
        return Duration.of_steps(value)
    if not isinstance(value, str):
        raise PydanticCustomError("duration", 'write a duration as "10ep", "5000st", "0.75run" or a number of steps')
    try:
        return Duration.parse(value)
    except ValueError as error:
        raise PydanticCustomError("duration", "{reason}", {"reason": str(error)}) from None
