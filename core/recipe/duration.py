"""How long something lasts, with its unit: "10ep" epochs, "5000st" optimizer steps, "0.75run" a share of the run.

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
    """The length of a run: optimizer steps in one epoch, and in all. Both at least 1.

    Where only a clock ends the run it is not `bounded`, and `total_steps` is more than any run takes.
    """

    steps_per_epoch: int
    total_steps: int
    bounded: bool = True

    @property
    def epochs(self) -> float:
        """Epochs in the run; a run bounded by steps may end inside one."""
        return self.total_steps / self.steps_per_epoch


class Duration(NamedTuple):
    """An amount with its unit. `steps(run)` says how many optimizer steps that is in a given run.

    A tuple and no dataclass: pydantic would write a dataclass's fields into JSON Schema defaults, not "1ep".
    """

    amount: Fraction
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "10ep", "5000st" or "0.75run". Raises ValueError with the way out."""
        found = re.match(PATTERN, text)
        if found is None or found.end() != len(text):
            raise ValueError(f'{text[:40]!r} is no duration: write epochs "10ep", steps "5000st" or a share "0.75run"')
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
        """One that was accepted before, whatever `parse` would say of it today. ValueError when it is none at all."""
        if isinstance(stored, int):
            return cls.of_steps(stored)
        found = re.fullmatch(PATTERN, stored)
        if found is None:
            raise ValueError("no duration")
        return cls(Fraction(found[1]), UNITS[found[2]])

    @classmethod
    def of_steps(cls, steps: int) -> Self:
        return cls(Fraction(steps), "st")

    def steps(self, run: RunLength) -> int:
        """Optimizer steps, rounded half up to a whole number."""
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
