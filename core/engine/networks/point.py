"""A point instead of a network: its one parameter are its coordinates."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from core.engine.networks.builders import ModuleWithRoles
from core.engine.networks.roles import ParameterRole
from core.recipe.facts import DataFacts
from core.recipe.models.point import Point


class PointModule(nn.Module):
    """Returns the same coordinates for every input."""

    def __init__(self, start: tuple[float, ...]) -> None:
        """`start` has one coordinate for each dimension."""
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, …) -> (batch, dimension)."""
        return self.weight.expand(len(inputs), -1)


def build(spec: Point, facts: DataFacts) -> ModuleWithRoles:
    """(batch, 0) -> (batch, dimension). Its one vector is the output, so its role is HEAD and not NORM."""
    del facts
    module = nn.Sequential(OrderedDict(point=PointModule(spec.start)))
    return ModuleWithRoles(module, {"point.weight": ParameterRole.HEAD})
