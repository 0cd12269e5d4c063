from typing import Annotated, Literal

from pydantic import Field

from core.recipe.component import Spec


class RandAugment(Spec):
    """`operations` random operations one after the other, each of `magnitude` 0 (none) to 30 (strongest).

    Cubuk et al. 2020, arXiv 1909.13719.
    """

    op: Literal["randaugment"] = "randaugment"
    operations: Annotated[int, Field(ge=1, le=8)] = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
