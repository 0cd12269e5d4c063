"""A stand-in for torch, found through PYTHONPATH by a real probe process: a machine with GPUs that a file describes.

`machine.json` beside this package: {token of CUDA_VISIBLE_DEVICES: {"name", "uuid", "memory", "free", "error"?, "hangs"?}}.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

_MACHINE = json.loads((Path(__file__).parent.parent / "machine.json").read_text())
_DEVICES = _MACHINE["devices"]
__version__ = "2.13.0+fake"
version = SimpleNamespace(cuda=_MACHINE["cuda"])


def _visible():
    token = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(_DEVICES.values()) if token is None else [_DEVICES[token]] if token in _DEVICES else []


class _Matrix:
    def __init__(self, good=True):
        self._good = good

    def __mod__(self, other):
        return self

    def __matmul__(self, other):
        return _Matrix(_visible()[0].get("computes", True))

    def reshape(self, *shape):
        return self

    def double(self):
        return self

    def to(self, device):
        if "error" in _visible()[0]:
            raise RuntimeError(_visible()[0]["error"])
        if _visible()[0].get("dies"):
            print("Fatal: lost the device", file=sys.stderr)  # noqa: T201
            sys.stderr.flush()
            os.abort()
        if _visible()[0].get("hangs"):
            time.sleep(600)
        return self

    def cpu(self):
        return self


def arange(count):
    return _Matrix()


def equal(found, wanted):
    return found._good


def device(kind, index=0):
    return f"{kind}:{index}"


def _init():
    if "error" in _MACHINE:
        raise RuntimeError(_MACHINE["error"])
    if not _visible():
        raise RuntimeError("No CUDA GPUs are available")


def _properties(index):
    found = _visible()[index if isinstance(index, int) else 0]
    return SimpleNamespace(name=found["name"], uuid=found["uuid"], major=9, minor=0, multi_processor_count=132)


cuda = SimpleNamespace(
    init=_init,
    synchronize=lambda device: None,
    get_device_properties=_properties,
    mem_get_info=lambda device: (_visible()[0]["free"], _visible()[0]["memory"]),
    device_count=lambda: len(_visible()),
)
