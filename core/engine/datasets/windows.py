"""How many batches are gathered at once, and from where, so that a batch has one alignment wherever its rows come from.

Matrix products round differently with other alignments. A batch is a view of a gather that begins at a multiple of 64
bytes of its place in the epoch; a chunk is a view of a gather that begins so in the split.
"""

from math import gcd
from typing import Final

from torch import Tensor

ALIGNMENT: Final = 64  # bytes; torch's own for new tensors on a CPU
WINDOW_BYTES: Final = 2**23  # of batches that are gathered at once: in a small step each call counts
EXAMPLES_ALIGNED: Final = 16  # float32: that many rows of any width are a multiple of 64 bytes


def window_examples(size: int, row_bytes: int) -> int:
    """The examples of a window: whole batches of `size` that are a multiple of 64 bytes, about 8 MiB of them."""
    least = size * (ALIGNMENT // gcd(ALIGNMENT, size * row_bytes))
    return least * max(1, WINDOW_BYTES // max(1, least * row_bytes))


def row_bytes(shape: tuple[int, ...]) -> int:
    """The bytes of one float32 example of this shape."""
    total = 4
    for size in shape:
        total *= size
    return total


def aligned_start(start: int, row: int) -> int:
    """The last example at or before `start` whose distance from the first one is a multiple of 64 bytes."""
    return start if start * row % ALIGNMENT == 0 else start // EXAMPLES_ALIGNED * EXAMPLES_ALIGNED


def narrow(values: Tensor, skipped: int) -> Tensor:
    """The rows after the first `skipped`, as a view."""
    return values[skipped:] if skipped else values
