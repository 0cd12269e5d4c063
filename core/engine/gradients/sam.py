"""Sharpness-aware minimisation (Foret et al. 2021): the gradient at the worst point near the weights."""

from collections.abc import Callable

import torch
from torch import Tensor

from core.engine.determinism import random_state, restore_random_state
from core.engine.gradients.closed_form import Gradient
from core.engine.gradients.same_batch import frozen_bn_stats
from core.engine.networks.network import Network
from core.recipe.sam import SAM

TINY = 1e-12  # keeps the direction of a zero gradient finite


def sharpness_aware(gradient: Gradient, network: Network, spec: SAM, now: Callable[[], int]) -> Gradient:
    """(inputs, targets) -> loss at the weights w; the gradient in the buffer is the one at w + e.

    `now` gives the number t of the step: only every `interval`-th step uses SAM. Both passes have the same dropout
    masks, the generator then has the state after one pass, and batch norm's statistics are those of the first pass. The
    weights are copied back, since adding and subtracting would round.
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
    """The perturbation e (P,): rho g / |g|, or if adaptive rho T² g / |T g| with T = |w| + eta (Kwon et al. 2021)."""
    if not spec.adaptive:
        flat: Tensor = gradient * (spec.rho / (torch.linalg.vector_norm(gradient) + TINY))
        return flat
    sizes = weights.abs().add_(spec.eta)
    scaled = sizes * gradient
    return sizes.mul_(scaled).mul_(spec.rho / (torch.linalg.vector_norm(scaled) + TINY))
