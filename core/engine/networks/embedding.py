"""The inputs of a table with embedded categories."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.recipe.models.embedding import embedding_width


class EmbedCodes(nn.Module):
    """(batch, features), whose last columns hold codes -> (batch, features - codes + widths of the vectors).

    `cardinalities` are the numbers of codes of these columns. A column's vectors are in `tables.<its number>.weight`.
    """

    def __init__(self, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(codes, embedding_width(codes)) for codes in cardinalities)

    def forward(self, inputs: Tensor) -> Tensor:
        codes = inputs[:, -len(self.tables) :].round().to(torch.int64)
        vectors = [table(codes[:, number]) for number, table in enumerate(self.tables)]
        return torch.cat([inputs[:, : -len(self.tables)], *vectors], dim=1)
