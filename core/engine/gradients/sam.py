"""Sharpness-aware minimisation: the gradient at the worst point nearby, in place of the one where the weights are."""

from collections.abc import Callable

import torch
from torch import Tensor

from core.engine.determinism import random_state, restore_random_state
from core.engine.gradients.closed_form import Gradient
from core.engine.gradients.same_batch import frozen_bn_stats
from core.engine.networks.network import Network
from core.recipe.sam import SAM

TINY = 1e-12  # keeps the direction of a gradient of nothing a number


def sharpness_aware(gradient: Gradient, network: Network, spec: SAM, now: Callable[[], int]) -> Gradient:
    """(inputs, targets) -> loss at the weights w; the gradient that is left is the one at w + e.

    `now` is the number t of the step: only every `interval`-th is such a step. Both passes see the same dropout, the
    generator then stands where one pass leaves it, and batch norm's statistics are those of the first pass. The weights
    are copied back, since adding and subtracting would round.
    """
    weights, saved = network.weights, torch.empty_like(network.weights)

    def sam_gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        if now() % spec.interval:
            return gradient(inputs, targets)
        before = random_state(weights.device)
        loss = gradient(inputs, targets)
        after = random_state(weights.device)
        try:
            with torch.no_grad(), frozen_bn_stats(network.module):
                saved.copy_(weights)
                weights.add_(sam_perturbation(spec, saved, network.gradient))
                restore_random_state(weights.device, before)
                with torch.enable_grad():
                    gradient(inputs, targets)
        finally:
            with torch.no_grad():
                weights.copy_(saved)
            restore_random_state(weights.device, after)
        return loss

    return sam_gradient


def sam_perturbation(spec: SAM, weights: Tensor, gradient: Tensor) -> Tensor:
    """E (P,): rho g / |g|, or rho T² g / |T g| with T = |w| + eta where it is adaptive."""
    if not spec.adaptive:
        flat: Tensor = gradient * (spec.rho / (torch.linalg.vector_norm(gradient) + TINY))
        return flat
    sizes = weights.abs().add_(spec.eta)
    scaled = sizes * gradient
    return sizes.mul_(scaled).mul_(spec.rho / (torch.linalg.vector_norm(scaled) + TINY))
