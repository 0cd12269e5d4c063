"""An averaging method says when weights are collected; it is a switch of the job, so its name is its field's."""

from typing import ClassVar

from core.recipe.component import Spec


class AveragingSpec(Spec):
    """`name` is the field of the job that turns it on."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str | None] = None
