"""The device that is checked: a real one, or one that is played on this CPU so that every line of a check runs."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from core.recipe.plan import ExecutionPlan, Planned, SlotKind, resolve_plan
from tests.gpu.check.played import PLAYED_UUID, TOTAL, PlayedDevice
from worker.devices.candidates import candidate_devices
from worker.devices.monitor import DeviceMemory, NvmlMonitor
from worker.devices.probe import list_devices

ROOT: Final = Path(__file__).resolve().parents[3]
INJECTION: Final = Path(__file__).parent / "injection"
SETTING: Final = "PYTHON_GPU_CHECK"  # passes to a zygote, as everything of Python's does
Kind = Literal["real", "played"]


def path_with(*folders: Path) -> str:
    """PYTHONPATH with these before all that it has."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


@dataclass(frozen=True)
class Target:
    """`token` is the device's UUID; `folder` belongs to the check and goes away with it.

    `flaw` is what a played device does wrong, so that a check can be seen to fail: "bits" computes something else each
    time, "leak" keeps the memory of the dead.
    """

    kind: Kind
    token: str
    folder: Path
    flaw: str = ""

    @classmethod
    def read(cls, text: str) -> "Target":
        told: dict[str, Any] = json.loads(text)
        return cls(**told | {"folder": Path(told["folder"])})

    def text(self) -> str:
        """What `read` reads."""
        return json.dumps(vars(self) | {"folder": str(self.folder)})

    @property
    def dry(self) -> bool:
        return self.kind == "played"

    @property
    def slot(self) -> SlotKind:
        return "cpu" if self.dry else "gpu"

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """What torch calls it in this process."""
        return "cpu" if self.dry else "cuda"

    def choose(self, real: Any, dry: Any) -> Any:
        """Sizes and repetitions of a real device, or those that a CPU does in a moment."""
        return dry if self.dry else real

    def plan(self, spec: Planned) -> ExecutionPlan:
        return resolve_plan(spec, self.slot)

    def use(self) -> None:
        """See this device alone in this process; before torch touches CUDA."""
        os.environ["CUDA_VISIBLE_DEVICES"] = self.token
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"

    def inject(self) -> None:
        """Make the zygotes that this process starts lay tests.gpu.check.injected into their runners."""
        os.environ[SETTING] = self.text()
        os.environ["PYTHONPATH"] = path_with(INJECTION, ROOT)

    @property
    def played(self) -> PlayedDevice:
        return PlayedDevice(self.folder, leaks=self.flaw == "leak")

    def memory(self) -> DeviceMemory:
        """Total and free bytes, asked without a context where NVML answers, else from a process of its own."""
        if self.dry:
            return DeviceMemory(TOTAL, self.played.free())
        return NvmlMonitor().device_memory(self.token) or _asked(self.token)


def _asked(token: str) -> DeviceMemory:
    """From a process with a context, whose own bytes are not free then; the same ones each time."""
    code = "import torch; print(*torch.cuda.mem_get_info(0))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    free, total = map(int, said.stdout.split())
    return DeviceMemory(total, free)


@contextlib.contextmanager
def opened(kind: Kind, flaw: str = "") -> Iterator[Target]:
    """The target with its folder. Raises LookupError where there is no real device."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        found = [PLAYED_UUID] if kind == "played" else candidate_devices(os.environ, NvmlMonitor(), list_devices)
        if not found:
            raise LookupError("neither NVML nor torch sees a device; `--dry-run` plays one")
        yield Target(kind, found[0], Path(folder), flaw)
