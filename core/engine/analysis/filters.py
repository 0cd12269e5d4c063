"""Directions on the scale of the weights: filter by filter, as Li et al. 2018 draw landscapes."""

import torch
from torch import Tensor

from core.engine.analysis.terrain import parameters
from core.engine.networks.network import Network


def filter_normalised(direction: Tensor, network: Network, *, ignore_biasbn: bool) -> Tensor:
    """A direction (P,) each of whose filters is as long as that of the network's weights.

    A filter is a slice of a weight along its first axis: what makes one output. Of weights with one axis (biases, the
    scales and shifts of batch norm) each number is a filter of its own; `ignore_biasbn` makes the direction zero there.
    Rescaling the layers of a ReLU network in a way that leaves its function alone rescales such a direction likewise.
    """
    sizes = [shape.numel() for shape in parameters(network).values()]
    cut = zip(torch.split(direction, sizes), torch.split(network.values, sizes), strict=True)
    found = []
    for shape, (ours, weights) in zip(parameters(network).values(), cut, strict=True):
        if len(shape) <= 1 and ignore_biasbn:
            found.append(torch.zeros_like(ours))
            continue
        filters = ours.view(shape[0] if shape else 1, -1)
        lengths = torch.linalg.vector_norm(filters, dim=1, keepdim=True)
        wanted = torch.linalg.vector_norm(weights.view_as(filters), dim=1, keepdim=True)
        found.append((filters * (wanted / lengths.clamp_min(torch.finfo(lengths.dtype).tiny))).flatten())
    return torch.cat(found)
