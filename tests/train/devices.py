"""Devices that are not here: one that works off a queue, and one that holds nothing but knows what is read from it."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")  # tensors of it have shapes and no numbers
READS = torch.ops.aten._local_scalar_dense.default
COPIES = torch.ops.aten._to_copy.default


class Queue(TorchDispatchMode):
    """Each operation takes the device some time, and the host hardly any: it only waits when it is told to."""

    def __init__(self, seconds: float, launch: float = 1e-5) -> None:
        super().__init__()
        self.seconds, self.launch = seconds, launch
        self.now = self.done_at = self.most_ahead = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.now += self.launch
        self.done_at = max(self.done_at, self.now) + self.seconds
        self.most_ahead = max(self.most_ahead, self.done_at - self.now)
        if func is READS:
            self.wait(self.done_at)
        return func(*args, **(kwargs or {}))

    def wait(self, until: float) -> None:
        self.now = max(self.now, until)

    def record(self) -> "Point":
        """A place in the queue."""
        return Point(self, self.done_at)


class Point:
    """An event of that device."""

    def __init__(self, queue: Queue, at: float) -> None:
        self._queue, self._at = queue, at

    def synchronize(self) -> None:
        self._queue.wait(self._at)


class Reads(TorchDispatchMode):
    """Counts what is read from META, as from a GPU: each is a wait for all that is queued. It reads as `value`."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = value
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is READS and args[0].is_meta:
            self.count += 1
            return self.value if args[0].is_floating_point() else int(self.value)
        if func is COPIES and args[0].is_meta and (kwargs or {}).get("device") == torch.device("cpu"):
            self.count += 1
            return torch.full(args[0].shape, self.value, dtype=args[0].dtype)
        if func._schema.name.startswith("aten::_fused_"):  # in place; of some there is none without numbers
            return None
        return func(*args, **(kwargs or {}))
