"""A point instead of a network: its one parameter is where it stands."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from core.engine.networks.builders import ModuleWithRoles
from core.engine.networks.roles import ParameterRole
from core.recipe.facts import DataFacts
from core.recipe.models.point import Point


class PointModule(nn.Module):
    """Answers every input with the same place."""

    def __init__(self, start: tuple[float, ...]) -> None:
        """One coordinate for each dimension."""
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, anything) -> (batch, dimension)."""
        return self.weight.expand(len(inputs), -1)


def build(spec: Point, facts: DataFacts) -> ModuleWithRoles:
    """(batch, 0) -> (batch, dimension). Its one vector is no factor but what the network answers."""
    del facts
    module = nn.Sequential(OrderedDict(point=PointModule(spec.start)))
    return ModuleWithRoles(module, {"point.weight": ParameterRole.HEAD})
