"""The three splits of a dataset, and what was fitted on the train split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from torch import Tensor

from core.engine.datasets.split import Split
from core.engine.datasets.splitting import SplitIndices
from core.engine.datasets.standardizer import Standardizer

FITTED: Final = "standardize."  # how the names of tensors begin that are stored with weights and are no weights

SplitT_co = TypeVar("SplitT_co", bound=Split, covariant=True)


@dataclass(frozen=True)
class LoadedDataset(Generic[SplitT_co]):
    """`target_scale` is None where targets are as in the file.

    `fitted` holds every tensor that inputs and targets of the trained weights need; they are stored with the weights
    under these names. For a prepared dataset `standardize.description` says as JSON in UTF-8 what they mean.
    """

    train: SplitT_co
    validation: SplitT_co
    test: SplitT_co
    target_scale: Standardizer | None
    fitted: Mapping[str, Tensor]
    rows: SplitIndices
    """The rows of the dataset that each split has."""

    def standardize_tensors(self) -> dict[str, Tensor]:
        """The fitted tensors by name; each begins with `standardize.`."""
        return dict(self.fitted)
