"""A metric is a spec and an import string of a builder: build(spec, inputs) -> a function of outputs and targets.

What the builder returns is said in core/engine/evaluation/measure.py.
"""

from typing import ClassVar, Literal

from core.recipe.named import NamedComponent

Mode = Literal["min", "max"]


class MetricSpec(NamedComponent):
    """A number that evaluations report besides the loss, in the series that has its name: val.accuracy."""

    implementation: ClassVar[str]
    reserved_names: ClassVar[frozenset[str]] = frozenset({"loss"})  # the series of the loss
    mode: ClassVar[Mode] = "min"
    """Whether lower or higher is better: for early stopping, targets, plateau schedules and the best checkpoints."""
