from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.facts import DataFacts, Task
from core.recipe.models.base import Init, ModelSpec

AXES = ("x", "y")
"""The names of coordinates, up to two dimensions."""


class Point(ModelSpec):
    """A point in the domain of a function; training moves it. Its coordinates are the series point.x and point.y.

    A point of more than two dimensions has the series point.0, point.1, … The value at step 0 is `start`, that at t is
    the point after t steps.
    """

    summary: ClassVar[str] = "A point that minimises a function, from a given start."
    implementation: ClassVar[str] = "core.engine.networks.point:build"
    tasks: ClassVar[tuple[Task, ...]] = ("function",)
    filters: ClassVar[bool] = False
    name: Literal["point"] = "point"
    start: Annotated[tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], Field(min_length=1, max_length=64)]

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        return axis_names(len(self.start))

    def parameter_count(self, facts: DataFacts) -> int:
        return len(self.start)

    def problems(self, facts: DataFacts) -> Iterator[FieldProblem]:
        if len(self.start) != facts.outputs:
            message = f"gives {len(self.start)} of the {facts.outputs} coordinates of the function"
            yield FieldProblem("/start", message, "give one for each dimension")
        if self.init != Init():
            yield FieldProblem("/init", "the start of a point is `start`", "leave it out")


def axis_names(dimension: int) -> tuple[str, ...]:
    """The names of the coordinates."""
    return AXES[:dimension] if dimension <= len(AXES) else tuple(map(str, range(dimension)))
