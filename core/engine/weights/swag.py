"""SWA-Gaussian (Maddox et al. 2019): networks drawn around the SWA solution."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from core.engine.datasets.split import Split
from core.engine.determinism import seeded_generator
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.networks.network import Network
from core.engine.weights.averaging import RunningMean
from core.recipe.averaging import SWAG


class SwagPosterior:
    """The spread of the models in a running mean: their variance (P,), and the last deviations from the mean (K, P)."""

    prefix = "swag."

    def __init__(self, spec: SWAG, mean: RunningMean, network: Network, most: int, seed: int) -> None:
        """`network` is a network of the same shape for the samples; at most `most` models are collected."""
        self.collects = mean.collects
        self._spec = spec
        self._mean = mean
        self._network = network
        self._seed = seed
        weights = network.weights.detach()
        self._squares = torch.zeros_like(weights)
        self._deviations = weights.new_zeros(min(spec.max_rank, most), len(weights))

    def collect(self, network: Network) -> None:
        """Collect the n-th model, which the mean already contains.

        With d = w - mean of n, the sum of squared deviations grows by d² n / (n - 1) (Welford): a difference of two
        means of squares would lose it in rounding.
        """
        models = self._mean.models
        with torch.no_grad():
            deviation = network.weights - self._mean.mean_weights()
            if models > 1:
                self._squares.addcmul_(deviation, deviation, value=models / (models - 1))
            self._deviations[(models - 1) % len(self._deviations)] = deviation

    @property
    def ready(self) -> bool:
        """True from the second model on: a single model has no spread."""
        return self._mean.models > 1

    def draw_weights(self, number: int) -> Tensor:
        """Weights (P,): mean + √scale (std ∘ e + Dᵀ f / √(K - 1)), e (P,) and f (K,) standard normal.

        K is the number of collected deviations. The same `number` gives the same weights on every device.
        """
        rank = min(self._mean.models, len(self._deviations))
        generator = seeded_generator(self._seed, "swag", number)
        e = torch.randn(len(self._squares), generator=generator).to(self._squares.device)
        f = torch.randn(rank, generator=generator).to(self._squares.device)
        spread = (self._squares / self._mean.models).sqrt() * e
        spread += self._deviations[:rank].T @ f / (rank - 1) ** 0.5
        return torch.add(self._mean.mean_weights(), spread, alpha=self._spec.scale**0.5)

    def sample_networks(self, train: Split, batch_size: int) -> Iterator[Network]:
        """The samples one by one, each with its own batch-norm statistics, all in the same network."""
        for number in range(self._spec.samples):
            with torch.no_grad():
                self._network.weights.copy_(self.draw_weights(number))
            reestimate_batch_norm(self._network, train, batch_size)
            yield self._network

    def tensors(self) -> dict[str, Tensor]:
        """The sum of squares (P,) and the deviations (K, P), unused rows 0; the mean is RunningMean's state."""
        return {"swag.squares": self._squares, "swag.deviations": self._deviations}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        for name, own in self.tensors().items():
            own.copy_(found[name])
