"""What a worker on this machine could compute on: torch, and each GPU."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from core.settings import Settings
from local.doctor.checks import CheckResult, failed_check, passed_check, warning_check

NAME: Final = "devices"
TORCH_SECONDS: Final = 60.0  # importing torch and initialising a GPU take long
INVENTORY: Final = "worker.devices.inventory"
_HIDDEN: Final = ("BASIN_", "AWS_")


def device_checks(settings: Settings | None) -> Iterator[CheckResult]:
    """The devices as a worker finds them: the same list, the same probe. A GPU that a worker serves is not touched."""
    if find_spec("torch") is None:
        yield warning_check(NAME, "torch is not installed", "fine for an api; a worker needs basin-server[worker]")
        return
    settings = settings or Settings.model_construct()
    done = subprocess.run(  # noqa: S603 - our own interpreter and module; CUDA is opened in processes of its own
        [sys.executable, "-m", INVENTORY, str(settings.device_locks), str(settings.gpu_free_share)],
        env=_probe_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TORCH_SECONDS - 1.0,  # below the time limit of the check, so that it does not outlive this process
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        found = f"the GPUs cannot be listed: {lines[-1] if lines else f'exit status {done.returncode}'}"
        yield failed_check(NAME, found, "install it again: basin-server[worker]")
        return
    yield from checks_of(json.loads(done.stdout.splitlines()[-1]), sorted(Path("/dev").glob("nvidia[0-9]*")))


def checks_of(inventory: dict[str, Any], nodes: list[Path]) -> Iterator[CheckResult]:
    """The results from the worker's inventory and the device nodes of the kernel."""
    torch, devices = inventory["torch"], inventory["devices"]
    if torch.get("torch") is None:
        yield failed_check(NAME, f"torch cannot be loaded: {torch['detail']}", "install it again: basin-server[worker]")
        return
    cores = f"torch {torch['torch']}, {os.cpu_count()} CPU cores"
    if not devices:
        yield _without_devices(cores, torch, len(nodes))
        return
    good = "; ".join(device["found"] for device in devices if device["ok"])
    yield passed_check(NAME, f"{cores}, CUDA {torch['cuda']}: {good or 'no GPU that works'}")
    for device in devices:
        if not device["ok"]:
            yield warning_check(NAME, device["found"], device["remedy"])


def _without_devices(cores: str, torch: dict[str, Any], nodes: int) -> CheckResult:
    if not nodes:
        return passed_check(NAME, f"{cores}, no GPU")
    built = f"built for CUDA {torch['cuda']}" if torch["cuda"] else "built without CUDA"
    why = "" if torch["ok"] or not torch["cuda"] else f": {torch['detail']}"
    do = "check CUDA_VISIBLE_DEVICES and `nvidia-smi`; install a torch for this driver's CUDA, see docs/gpu.md"
    return warning_check(NAME, f"{cores}; this machine shows {nodes} GPUs, but torch ({built}) sees none{why}", do)


def _probe_environment() -> dict[str, str]:
    """The environment of the probe: no secrets, this process' module path, no imports from the working directory."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    paths = [os.environ.get("PYTHONPATH"), *sys.path]
    return plain | {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
