"""Repeat a batch exactly: with the same dropout masks, and without a second update of batch norm's statistics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from core.engine.determinism import random_state, restore_random_state
from core.engine.networks.network import Network
from core.engine.networks.norms import mixes_batch, running_norms


@contextmanager
def replay_randomness(network: Network) -> Iterator[Callable[[], None]]:
    """Yield a function that restores the random state of the entry; it is restored once more at the exit.

    Inside, batch norm still normalises by the statistics of each batch, but its running statistics are frozen.
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
    """Inside, running statistics and their counters do not change, to the last bit.

    A layer in evaluation mode never updates them. An instance norm updates them even without track_running_stats, so
    its buffers are detached inside.
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
