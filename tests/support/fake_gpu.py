"""A machine with GPUs that a file describes, as its worker sees it; what its runners see is in fake_gpu_zygote.

They compute on the CPU what a plan wants on a GPU, and break where the file says: real processes, no CUDA.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from worker.devices.devices import Devices
from worker.devices.monitor import DeviceMemory
from worker.devices.report import DeviceReport
from worker.launcher import ZygoteLauncher

FILE_VARIABLE: Final = "PYTHON_FAKE_GPUS"  # a runner's environment keeps names that begin so
TOTAL: Final = 80 << 30
A, B = "GPU-aaaaaaaa-0000-4000-8000-000000000001", "GPU-bbbbbbbb-0000-4000-8000-000000000002"

Fault = Literal["dies", "sticky", "foreign", "oom_build", "oom_forward", "killed", "killed_by_driver", "hangs"]
"""What befalls a job: its GPU breaks, or works again at once; others take its memory; its own memory runs out; SIGKILL,
from a GPU that breaks or not; silence.
"""


class FakeMachine:
    """The file. `works` and the `free` share of memory by GPU; by the name of a job, what befalls it at which step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.probed: list[str] = []  # in this process

    def reset(self) -> None:
        """Two GPUs that work, and no faults."""
        gpus = {token: {"works": True, "free": 0.99} for token in (A, B)}
        self.path.write_text(json.dumps({"gpus": gpus, "faults": {}}))
        self.probed.clear()

    def read(self) -> dict[str, Any]:
        with self.changed() as found:
            return found

    @contextmanager
    def changed(self) -> Iterator[dict[str, Any]]:
        """What stands in the file, to be changed; nobody else does so meanwhile."""
        with self.path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found: dict[str, Any] = json.load(file)
            yield found
            file.seek(0)
            file.truncate()
            json.dump(found, file)
            file.flush()

    def set_gpu(self, token: str, *, works: bool = True, free: float = 0.99) -> None:
        with self.changed() as found:
            found["gpus"][token] = {"works": works, "free": free}

    def set_fault(self, job: str, fault: Fault, step: int = 0, times: int = 1) -> None:
        """From `step` on, so many times."""
        with self.changed() as found:
            found["faults"][job] = {"fault": fault, "step": step, "times": times}

    def take_fault(self, job: str | None, step: int) -> Fault | None:
        """What befalls the job there; it is used up by that."""
        with self.changed() as found:
            wanted = found["faults"].get(job)
            if wanted is None or step < wanted["step"] or not wanted["times"]:
                return None
            wanted["times"] -= 1
            fault: Fault = wanted["fault"]
            return fault

    def list_uuids(self) -> list[str]:
        return list(self.read()["gpus"])

    def device_memory(self, uuid: str) -> DeviceMemory:
        return DeviceMemory(TOTAL, int(TOTAL * self.read()["gpus"][uuid]["free"]))

    def probe(self, token: str) -> DeviceReport:
        self.probed.append(token)
        if self.read()["gpus"][token]["works"]:
            return DeviceReport(token, ok=True, name="Fake H1", uuid=token)
        return DeviceReport.from_failure(token, "failed", "CUDA error: an illegal memory access was encountered")

    def devices(self) -> Devices:
        """What a worker asks of its GPUs, answered by the file."""
        return Devices(self.probe, self, settle_seconds=0.0)


class FakeGpuLauncher(ZygoteLauncher):
    """Its runners find the GPUs of the file that FILE_VARIABLE names."""

    module: ClassVar[str] = "tests.support.fake_gpu_zygote"


def machine_here() -> FakeMachine:
    """The one that a runner finds."""
    return FakeMachine(Path(os.environ[FILE_VARIABLE]))
