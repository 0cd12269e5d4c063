"""The datasets. A new one: its file, and its line in the union."""

from typing import Annotated

from pydantic import Field

from core.recipe.data.base import DataSpec, SplitSizes, split_sizes
from core.recipe.data.blobs import Blobs
from core.recipe.data.breast_cancer import BreastCancer
from core.recipe.data.dataset import Dataset
from core.recipe.data.diabetes import Diabetes
from core.recipe.data.digits import Digits
from core.recipe.data.function import Function
from core.recipe.data.gaussian_images import GaussianImages
from core.recipe.data.iris import Iris
from core.recipe.data.moons import Moons
from core.recipe.data.spirals import Spirals
from core.recipe.data.wine import Wine
from core.recipe.plugins import JoinPlugins

Data = Annotated[
    Digits
    | BreastCancer
    | Wine
    | Iris
    | Diabetes
    | Blobs
    | Moons
    | Spirals
    | GaussianImages
    | Function
    | Dataset,
    Field(discriminator="name"),
    JoinPlugins("basin.data"),
]  # fmt: skip

__all__ = ["Data", "DataSpec", "Dataset", "Function", "SplitSizes", "split_sizes"]
