"""Sharpness-aware minimisation (SAM), for any optimizer."""

from typing import Annotated

from pydantic import Field

from core.recipe.component import NonNegative, Positive, Spec


class SAM(Spec):
    """The gradient is taken at w + e, where the loss is about the highest within rho, and applied to w.

    e = rho g / |g| with the norm of all weights together; `adaptive` (ASAM) measures the distance in units of each
    weight's own size: e = rho T² g / |T g| with T = |w| + eta. Every `interval`-th step, t = 0, interval, …, is such a
    step and costs two gradients; the others are plain. Foret et al. 2020, arXiv:2010.01412; Kwon et al. 2021,
    arXiv:2102.11600.
    """

    rho: Positive = 0.05
    adaptive: bool = False
    eta: NonNegative = 0.01
    interval: Annotated[int, Field(ge=1, le=10**9)] = 1
