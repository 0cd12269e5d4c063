"""A device that breaks, or has no more memory, played on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

STICKY = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


class Breaking(TorchDispatchMode):
    """After `after` operations each one fails, as each call to CUDA does after an error that sticks to the context."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after
        self.refused = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            self.refused += 1
            raise torch.AcceleratorError(STICKY)
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many operations there are: a list of one number, once it is over."""
    found: list[int] = []
    with Breaking(10**9) as all_of_them:
        yield found
    found.append(10**9 - all_of_them.left)


def on_the_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which no device has a part in: reading a file works as long as there is a disk."""

    def called(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return called


def failing(function: Callable[..., Any], error: BaseException, at: int = 1) -> Callable[..., Any]:
    """The same function, whose call number `at` raises."""
    calls = iter(range(1, 10**9))

    def called(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise error
        return function(*args, **kwargs)

    return called
