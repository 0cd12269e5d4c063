"""The same batch once more, as if it were the first time: same dropout, and nobody counts it twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from core.engine.determinism import random_state, restore_random_state
from core.engine.networks.network import Network
from core.engine.networks.norms import mixes_batch, running_norms


@contextmanager
def replay_randomness(network: Network) -> Iterator[Callable[[], None]]:
    """Gives a function that puts randomness back to where it stands now; afterwards it stands there again.

    Inside, batch norm still normalises each batch by itself, but its running statistics stay as they are.
    """
    device = network.weights.device
    before = random_state(device)
    with frozen_bn_stats(network.module):
        try:
            yield lambda: restore_random_state(device, before)
        finally:
            restore_random_state(device, before)


@contextmanager
def frozen_bn_stats(module: nn.Module) -> Iterator[None]:
    """Running statistics and their counters stay as they are, to the last bit.

    A layer in evaluation mode counts nothing anyway. An instance norm counts whatever it is told, so its buffers are
    taken out meanwhile.
    """
    layers = [layer for layer in running_norms(module) if layer.training]
    others = [(each, each.running_mean, each.running_var) for each in layers if not mixes_batch(each)]
    try:
        for layer in layers:
            layer.track_running_stats = False
        for layer, _, _ in others:
            layer.running_mean = layer.running_var = None
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
        for layer, mean, variance in others:
            layer.running_mean, layer.running_var = mean, variance
