"""Components that a job may name by a string alone, as in `"loss": "mse"`."""

from collections.abc import Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar, Final

from pydantic_core import CoreSchema, core_schema

from core.recipe.component import Component
from core.recipe.facts import Task

NAME_ALONE: Final = "name alone"
AS_OBJECT: Final = "object"
"""The two forms, as the locations of pydantic's errors name them."""


class NamedComponent(Component):
    """A loss or a metric. Where no field is required, its name alone stands for it with every default.

    `implementation` names a function of the engine by import string, see core/engine/evaluation/measure.py.
    """

    implementation: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]

    @cached_property
    def written(self) -> str | dict[str, Any]:
        """As it is stored and shown: its name if the class has no other field, else an object with every field."""
        return self.name if len(type(self).model_fields) == 1 else self.dump()


def default_members(members: Sequence[type[Component]]) -> dict[str, Component]:
    """Name -> the component with every default, of those that require no field."""
    optional = [each for each in members if not any(field.is_required() for field in each.model_fields.values())]
    return {str(each.model_fields["name"].default): each.model_validate({}) for each in optional}


def named_or_object(members: Sequence[type[Component]], objects: CoreSchema) -> CoreSchema:
    """The schema of a union that takes names too; `objects` is that of the objects.

    Each request is read and shown by it, so the functions that it calls are built in: they run no Python code.
    """
    known = default_members(members)
    names = core_schema.literal_schema(list(known))
    named = core_schema.no_info_after_validator_function(known.__getitem__, names)
    return core_schema.union_schema(
        [(named, NAME_ALONE), (objects, AS_OBJECT)],
        mode="left_to_right",
        serialization=core_schema.plain_serializer_function_ser_schema(attrgetter("written")),
    )
