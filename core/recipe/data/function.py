"""A function of a few numbers as data: the mean of one function per example, so that mini-batches differ."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticKnownError

from core.errors import FieldProblem
from core.recipe.component import Fraction, Spec, cross_field_error
from core.recipe.data.base import SyntheticData
from core.recipe.data.formulas import FORMULAS, Formula, Number
from core.recipe.facts import DataFacts

if TYPE_CHECKING:
    from core.recipe.data.base import Array

MOST_EXAMPLES = 4096
MOST_DIMENSIONS = 64
SLACK = 1e-6  # tolerance for the sum of all a_i, as a share of the sum of all |a_i|: rounding of decimal fractions
DIGITS = (
    23  # binary digits of the largest a_i; all are rounded to its grid, so that float32 holds them and they sum to 0
)
SPARE: dict[str, Any] = {"validation": 0.0, "test": 0.0, "standardize": False}
"""The fields that split and scale examples, each with its only valid value here."""

LARGEST = 1e6
Vector = Annotated[
    tuple[Annotated[float, Field(ge=-LARGEST, le=LARGEST)], ...], Field(min_length=1, max_length=MOST_DIMENSIONS)
]


def _check_formula_name(name: str) -> str:
    if name not in FORMULAS:
        *first, last = (repr(each) for each in FORMULAS)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(first)} or {last}"})
    return name


FunctionName = Annotated[
    str,
    AfterValidator(_check_formula_name),
    WithJsonSchema(
        {
            "type": "string",
            "oneOf": [
                {"const": name, "title": f"f = {each.text}", "description": each.about}
                for name, each in FORMULAS.items()
            ],
        }
    ),
]


class PairedNoise(Spec):
    """Examples 2k and 2k + 1 are + and - `scale` along one axis; the pairs cycle through the axes."""

    scale: Annotated[float, Field(gt=0, le=LARGEST)]
    examples: Annotated[int, Field(ge=2, le=MOST_EXAMPLES, multiple_of=2)]

    def noise_vectors(self, dimension: int) -> list[list[float]]:
        """The a_i, one list of `dimension` numbers for each example."""
        signs = (self.scale, -self.scale)
        return [
            [signs[i % 2] * (i // 2 % dimension == axis) for axis in range(dimension)] for i in range(self.examples)
        ]


def _noise_form(value: object) -> str:
    return "paired" if isinstance(value, dict | PairedNoise) else "listed"


Noise = Annotated[
    Annotated[tuple[Vector, ...], Field(max_length=MOST_EXAMPLES), Tag("listed")]
    | Annotated[PairedNoise, Tag("paired")],
    Discriminator(_noise_form),
]


class Function(SyntheticData):
    """f is the mean of f_i(x) = f(x) + a_i · x over the examples i; `noise` holds the a_i, which sum to zero.

    The full batch minimises f itself, a mini-batch f plus the mean of its own a_i · x; without noise there is one
    example. The noise is given as vectors, or as pairs of + and - `scale` along each axis in turn. There is no
    validation split: f itself is evaluated, in the series function.loss. `quadratic` takes the curvatures `h`, one for
    each dimension.
    """

    summary: ClassVar[str] = "A function of one or more numbers, which the model point minimises."
    name: Literal["function"] = "function"
    function: FunctionName
    h: Vector | None = None
    noise: Noise = ()
    validation: Fraction = 0.0
    test: Fraction = 0.0
    standardize: bool = False

    def unknown_name(self) -> FieldProblem | None:
        if self.function in FORMULAS:
            return None
        return FieldProblem("/function", f"this release has no {self.function!r}")

    @property
    def formula(self) -> Formula:
        return FORMULAS[self.function]

    @property
    def dimension(self) -> int:
        """The number of arguments of f."""
        return len(self.h or ()) if self.formula.takes_h else len(self.formula.window)

    @property
    def judged_on(self) -> Literal["function"]:
        return "function"

    def value_at(self, *x: Number) -> Number:
        """f(x, y, …) of floats, or of tensors."""
        return self.formula.value(*x, h=self.h) if self.formula.takes_h else self.formula.value(*x)

    def noise_vectors(self) -> list[list[float]]:
        """The a_i as given; a single zero vector without noise."""
        if isinstance(self.noise, PairedNoise):
            return self.noise.noise_vectors(self.dimension)
        return [list(each) for each in self.noise] or [[0.0] * self.dimension]

    def facts(self) -> DataFacts:
        """The target of an example is its a_i; it has no input."""
        examples = self.noise.examples if isinstance(self.noise, PairedNoise) else max(1, len(self.noise))
        return DataFacts(examples, (0,), "function", self.dimension)

    @model_validator(mode="after")
    def is_a_mean(self) -> Self:
        found = [
            *self._split_problems(),
            *([*self._curvature_problems()] or [*self._dimension_problems()] or [*self._sum_problems()]),
        ]
        if found:
            raise cross_field_error(*found)
        return self

    def _split_problems(self) -> Iterator[FieldProblem]:
        for field, value in SPARE.items():
            if getattr(self, field) != value:
                yield FieldProblem(f"/{field}", "a function has no examples to hold out or to scale", "leave it out")

    def _curvature_problems(self) -> Iterator[FieldProblem]:
        if self.formula.takes_h and self.h is None:
            yield FieldProblem(
                "/h", f"{self.function} needs its curvatures", 'give one for each dimension: "h": [1, 10]'
            )
        elif self.h is not None and not self.formula.takes_h:
            takers = " or ".join(name for name, each in FORMULAS.items() if each.takes_h)
            yield FieldProblem("/h", f"{self.function} takes no curvatures", f"leave it out, or take {takers}")

    def _dimension_problems(self) -> Iterator[FieldProblem]:
        if isinstance(self.noise, PairedNoise):
            if self.noise.examples % (2 * self.dimension):
                message = f"{self.noise.examples} examples do not share {self.dimension} axes evenly"
                yield FieldProblem("/noise/examples", message, f"use a multiple of {2 * self.dimension}")
            return
        for index, each in enumerate(self.noise):
            if len(each) != self.dimension:
                message = f"{len(each)} numbers, where {self.function} takes {self.dimension}"
                yield FieldProblem(f"/noise/{index}", message, "give one for each dimension")

    def _sum_problems(self) -> Iterator[FieldProblem]:
        if isinstance(self.noise, PairedNoise):
            return
        columns = list(zip(*self.noise_vectors(), strict=True))
        sums = [math.fsum(column) for column in columns]
        if any(abs(total) > SLACK * math.fsum(map(abs, column)) for total, column in zip(sums, columns, strict=True)):
            shown = ", ".join(f"{total:g}" for total in sums[:4]) + (", …" if len(sums) > 4 else "")
            hint = "subtract the mean from each, so that f stays the mean of the examples"
            yield FieldProblem("/noise", f"the vectors sum to ({shown}), not to zero", hint)

    def generate_arrays(self) -> "dict[str, Array]":
        """Targets float32 (N, dimension): the a_i, rounded to a grid so that they sum to exactly 0; inputs (N, 0)."""
        import numpy as np

        vectors = np.array(self.noise_vectors(), dtype=np.float64)
        unit = math.ldexp(1.0, math.frexp(float(np.abs(vectors).max()))[1] - DIGITS)
        sums = np.round(np.cumsum(vectors - vectors.mean(0), axis=0) / unit)
        targets = np.diff(sums, axis=0, prepend=0.0) * unit
        return {"inputs": np.zeros((len(targets), 0), np.float32), "targets": targets.astype(np.float32)}
