"""This machine: the folder of the service, and what can compute."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from core.embedded.doctor.report import Check, fail, ok, space, warning
from core.settings import Settings

TORCH_SECONDS: Final = 30.0  # loading torch is work, and so is waking a GPU: nothing that is away answers sooner
FEW_FILES: Final = 1000

# A process of its own: nothing of the service may import torch, and CUDA is opened only where a job runs.
_ASK: Final = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
found = [torch.cuda.get_device_properties(index) for index in range(count)]
devices = [f"{each.name} ({each.total_memory / 1e9:.0f} GB)" for each in found]
print(json.dumps({"torch": torch.__version__, "built": torch.version.cuda, "devices": devices}))
"""
_HIDDEN: Final = ("BASIN_", "AWS_")


def home_checks(settings: Settings) -> Iterator[Check]:
    """The folder for everything that is kept: there, writable, with room."""
    home = settings.home
    if not home.is_dir():
        if home.exists():
            yield fail("home", f"{home} is no folder", "move it away, or name another folder by BASIN_HOME")
        else:
            yield warning("home", f"{home} is not there yet", "`basin up` or `basin migrate` makes it")
        return
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as probe:
            probe.write(b"?")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        do = f"let user {os.getuid()} write there, or name another folder by BASIN_HOME"
        yield fail("home", f"{home} cannot be written: {error.strerror}", do)
    else:
        yield ok("home", f"{home} can be written")
    yield space("disk", shutil.disk_usage(home).free)
    system = os.statvfs(home)
    if system.f_files and system.f_favail < FEW_FILES:
        yield fail("disk", f"room for {system.f_favail} more files", "remove files: the file system counts them too")


def device_checks() -> Iterator[Check]:
    """What a worker on this machine could compute on."""
    if find_spec("torch") is None:
        yield warning("devices", "torch is not installed", "fine for an api; a worker needs basin-server[worker]")
        return
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-I", "-c", _ASK],
        env=plain,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TORCH_SECONDS - 1.0,  # nobody waits longer, and it must not outlive us
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        found = f"torch cannot be loaded: {lines[-1] if lines else f'exit status {done.returncode}'}"
        yield fail("devices", found, "install it anew: basin-server[worker]")
        return
    yield devices_check(json.loads(done.stdout.splitlines()[-1]), sorted(Path("/dev").glob("nvidia[0-9]*")))


def devices_check(told: dict[str, Any], nodes: list[Path]) -> Check:
    """What torch told of itself, beside what the kernel shows."""
    cores = f"torch {told['torch']}, {os.cpu_count()} CPU cores"
    if told["devices"]:
        return ok("devices", f"{cores}, CUDA {told['built']}: {', '.join(told['devices'])}")
    if not nodes:
        return ok("devices", f"{cores}, no GPU")
    built = f"built for CUDA {told['built']}" if told["built"] else "built without CUDA"
    do = "check CUDA_VISIBLE_DEVICES and `nvidia-smi`; install a torch for this driver's CUDA"
    return warning("devices", f"{cores}; this machine shows {len(nodes)} GPUs, but torch ({built}) sees none", do)
