from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.facts import DataFacts, Task
from core.recipe.models.base import Init, ModelSpec

AXES = ("x", "y")
"""What coordinates are called as long as there are names enough."""


class Point(ModelSpec):
    """A place in the domain of a function; training moves it. Its coordinates are the series point.x and point.y.

    One of more than two dimensions has the series point.0, point.1, … At step 0 stands `start`, at t where the point is
    after t steps.
    """

    summary: ClassVar[str] = "A point that descends a function, from where you put it."
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
            yield FieldProblem("/init", "a point starts where `start` says", "leave it out")


def axis_names(dimension: int) -> tuple[str, ...]:
    """The names of so many coordinates."""
    return AXES[:dimension] if dimension <= len(AXES) else tuple(map(str, range(dimension)))
