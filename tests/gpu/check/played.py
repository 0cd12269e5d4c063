"""A device that is played on a machine without one: a name, and memory that processes share as long as they live.

Every process that uses it writes how many bytes it holds into a file of a folder; the bytes of the dead are free.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
TOTAL: Final = 1024 * MIB
CONTEXT: Final = 64 * MIB
PLAYED_UUID: Final = "GPU-00000000-1111-4222-8333-444444444444"


class PlayedMemoryError(RuntimeError):
    """In the words of torch's allocator."""


@dataclass(frozen=True)
class PlayedDevice:
    """The memory of one device, in `folder`; one that `leaks` does not get back what the dead held."""

    folder: Path
    leaks: bool = False

    def free(self) -> int:
        """Bytes that no living process holds."""
        return TOTAL - sum(self._held(file) for file in self.folder.glob("*.json"))

    def take(self, size: int) -> None:
        """Hold so many bytes more, until this process ends; raises PlayedMemoryError."""
        if size > (free := self.free()):
            raise PlayedMemoryError(
                f"CUDA out of memory. Tried to allocate {size / MIB:.2f} MiB. GPU 0 has a total capacity of "
                f"{TOTAL / MIB:.2f} MiB of which {free / MIB:.2f} MiB is free."
            )
        mine = self.folder / f"{os.getpid()}.json"
        aside = mine.with_suffix(".part")
        aside.write_text(json.dumps(size + (self._held(mine) if mine.exists() else 0)))
        aside.replace(mine)

    @staticmethod
    def visible() -> bool:
        """Whether CUDA_VISIBLE_DEVICES lets this process see it."""
        return os.environ.get("CUDA_VISIBLE_DEVICES") in {None, PLAYED_UUID}

    def _held(self, file: Path) -> int:
        return int(file.read_text()) if self.leaks or _lives(file.stem) else 0


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
