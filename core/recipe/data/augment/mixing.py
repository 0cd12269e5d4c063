"""Mixtures of two train images and of their targets; the partner is another train image."""

from typing import Annotated, Literal

from pydantic import Field

from core.recipe.component import Spec

Alpha = Annotated[float, Field(gt=0, le=100)]


class Mixup(Spec):
    """w x + (1 - w) x', w from Beta(alpha, alpha); targets are mixed alike (Zhang et al. 2018, arXiv 1710.09412)."""

    op: Literal["mixup"] = "mixup"
    alpha: Alpha = 0.2


class CutMix(Spec):
    """A rectangle of the partner in place of its own, in a `share` of the images; targets are mixed by area.

    The area that stays is a share w from Beta(alpha, alpha) (Yun et al. 2019, arXiv 1905.04899).
    """

    op: Literal["cutmix"] = "cutmix"
    alpha: Alpha = 1.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
