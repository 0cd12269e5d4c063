"""Random numbers of an example: a counter hash of (seed, epoch, row, draw), the same in any batch and on any device."""

from dataclasses import dataclass

from torch import Tensor

from core.engine.determinism import stream_seed

GAMMA = 0x9E3779B97F4A7C15
FIRST = 0xBF58476D1CE4E5B9
SECOND = 0x94D049BB133111EB


def as_signed(number: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number."""
    return number - 2**64 if number >= 2**63 else number


def shift_right(values: Tensor, places: int) -> Tensor:
    """The logical shift of int64; torch's own is arithmetic."""
    return (values >> places) & ((1 << (64 - places)) - 1)


def splitmix64(values: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele et al. 2014) on int64 counters, modulo 2^64."""
    mixed = values * as_signed(GAMMA)
    mixed = (mixed ^ shift_right(mixed, 30)) * as_signed(FIRST)
    mixed = (mixed ^ shift_right(mixed, 27)) * as_signed(SECOND)
    return mixed ^ shift_right(mixed, 31)


@dataclass(frozen=True, slots=True)
class Draws:
    """The draws of some examples in one epoch; `rows` int64 (b,) are their rows in the dataset."""

    seed: int
    epoch: int
    rows: Tensor

    def uniform(self, *draw: str | int) -> Tensor:
        """The hash h(seed, epoch, row, draw) as a number, float64 (b,), uniform in [0, 1)."""
        key = as_signed(stream_seed(self.seed, "augment", self.epoch, *draw))
        return shift_right(splitmix64(splitmix64(self.rows + 1) ^ key), 11).double() * 2.0**-53

    def integers(self, most: int, *draw: str | int) -> Tensor:
        """Whole numbers 0 to most, equally likely, int64 (b,)."""
        return (self.uniform(*draw) * (most + 1)).long()

    @staticmethod
    def whole_number(seed: int, epoch: int, draw: str, below: int) -> int:
        """A whole number from 0 to below `below` that all examples of an epoch share."""
        return stream_seed(seed, "augment", epoch, draw) % below
