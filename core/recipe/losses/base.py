"""A loss is a spec and an import string of a builder: build(spec, inputs) -> a function of outputs and targets.

What the builder returns, and how the engine adds it up over micro-batches and over a split, is said in
core/engine/evaluation/measure.py.
"""

from typing import ClassVar

from core.recipe.named import NamedComponent


class LossSpec(NamedComponent):
    """A loss function: what the training minimises. Lower is better, and evaluations report it in the series `loss`."""

    implementation: ClassVar[str]
    smooths_labels: ClassVar[bool] = False
    """Whether it takes the job's `label_smoothing`."""
