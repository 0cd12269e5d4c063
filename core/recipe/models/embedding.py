"""The sizes of the vectors that a model learns for the codes of a category."""

import math
from collections.abc import Sequence
from typing import Final

WIDEST: Final = 50


def embedding_width(cardinality: int) -> int:
    """The length of the vector of each of `cardinality` codes: min(50, ceil(1.6 k^0.56)).

    The rule is fastai's (Howard & Gugger 2020, fastai: A Layered API for Deep Learning), which rounds to the nearest
    whole number and has 600 in place of 50.
    """
    return min(WIDEST, math.ceil(1.6 * math.pow(cardinality, 0.56)))


def embedding_parameters(cardinalities: Sequence[int]) -> int:
    """The number of weights in the tables of all embedded categories."""
    return sum(each * embedding_width(each) for each in cardinalities)


def embedded_features(features: int, cardinalities: Sequence[int]) -> int:
    """The inputs after embedding: each code, one of the `features`, gives its vector instead."""
    return features - len(cardinalities) + sum(map(embedding_width, cardinalities))
