"""Somebody else's process that holds memory of the device.

    python -m tests.gpu.check.hog TARGET LEAVE     all but LEAVE bytes, until its standard input ends

It prints the bytes that are free once it holds them.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.gpu.check.target import ROOT, Target

READY_SECONDS = 60.0


def main() -> None:
    target, leave = Target.read(sys.argv[1]), int(sys.argv[2])
    held = _hold(target, leave)
    print(target.memory().free, flush=True)  # noqa: T201 - this is its answer
    sys.stdin.read()
    del held


def _hold(target: Target, leave: int) -> Any:
    if target.dry:
        target.played.take(target.played.free() - leave)
        return None
    target.use()
    import torch

    torch.zeros(1, device="cuda")
    free, _ = torch.cuda.mem_get_info(0)
    return torch.empty(max(0, free - leave), dtype=torch.uint8, device="cuda")


@contextmanager
def hogged(target: Target, leave: int) -> Iterator[int]:
    """A hog that leaves so many bytes; how many are free indeed."""
    command = [sys.executable, "-m", "tests.gpu.check.hog", target.text(), str(leave)]
    hog = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert hog.stdout
        yield int(hog.stdout.readline())
    finally:
        hog.kill()
        hog.communicate()


if __name__ == "__main__":
    main()
