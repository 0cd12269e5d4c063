"""Whether torch can use a device, and what the device is. It runs in a process of its own, as CUDA stays initialised.

    python -m core.engine.device_probe            the first visible device: a context, one product, a synchronisation
    python -m core.engine.device_probe --list     the names of all visible devices, without a context

The last line of its output is one JSON object, see `probe` and `devices`. CUDA_VISIBLE_DEVICES says what is visible.
The exit status is 0 unless Python itself fails.
"""

import json
import platform
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

SIZE: Final = 64  # rows of the product; its entries are integers below 2**24, exact on every device
DRIVER_FILE: Final = Path("/proc/driver/nvidia/version")

# Part of a message of torch or CUDA -> reason why the device cannot be used. The first match counts.
SIGNS: Final[tuple[tuple[str, str], ...]] = (
    ("not compiled with cuda", "torch_without_cuda"),
    ("driver on your system is too old", "driver_too_old"),
    ("driver version is insufficient", "driver_too_old"),
    ("found no nvidia driver", "no_driver"),
    ("no cuda gpus are available", "no_device"),
    ("no cuda-capable device", "no_device"),
    ("invalid device ordinal", "no_device"),
    ("no kernel image", "unsupported_device"),
    ("out of memory", "memory_in_use"),
)


def main() -> None:
    listing = sys.argv[1:] == ["--list"]
    print(json.dumps(list_devices() if listing else probe_device()))  # noqa: T201 - this is its answer


def probe_device() -> dict[str, Any]:
    """{"ok": true, name, uuid, memory_bytes, free_bytes, capability, …} or {"ok": false, "reason", "detail", …}."""
    return _ask_torch(_compute_on_device)


def list_devices() -> dict[str, Any]:
    """{"ok": true, "devices": [{name, uuid, capability}], …}, or the answer of a failed probe."""
    return _ask_torch(_visible_devices)


def _ask_torch(question: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """The answer of `question(torch)`, with the versions of torch, its CUDA, the driver and Python."""
    about = {"torch": None, "cuda": None, "driver": driver_version(), "python": platform.python_version()}
    try:
        torch = import_module("torch")
        about |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        if torch.version.cuda is None:
            raise RuntimeError("this torch is not compiled with CUDA")  # noqa: TRY301 - as torch itself says it
        return {"ok": True, **about, **question(torch)}
    except Exception as error:  # noqa: BLE001 - any error is the answer of a probe
        return {"ok": False, **about, **failure_reason(error)}


def _compute_on_device(torch: Any) -> dict[str, Any]:
    """Describe the first visible device, after it computed a product correctly."""
    torch.cuda.init()
    device = torch.device("cuda", 0)
    numbers = (torch.arange(SIZE * SIZE) % 7).reshape(SIZE, SIZE).double()
    product = (numbers.to(device) @ numbers.to(device)).cpu()
    torch.cuda.synchronize(device)
    if not torch.equal(product, numbers @ numbers):
        raise RuntimeError("a product of integers is wrong")
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {**_device_identity(properties), "memory_bytes": total, "free_bytes": free}


def _visible_devices(torch: Any) -> dict[str, Any]:
    """Describe all visible devices, without a context on any."""
    torch.cuda.init()
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {"devices": [_device_identity(each) for each in found]}


def _device_identity(properties: Any) -> dict[str, Any]:
    return {
        "name": properties.name,
        "uuid": str(getattr(properties, "uuid", "")),
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
    }


def failure_reason(error: BaseException) -> Mapping[str, str]:
    """`reason` for programs, `detail` (the first line of the message) for the user."""
    text = (str(error) or type(error).__name__).strip()
    reason = next((reason for sign, reason in SIGNS if sign in text.lower()), "failed")
    return {"reason": reason, "detail": text.splitlines()[0][:500]}


def driver_version(file: Path = DRIVER_FILE) -> str | None:
    """The version of NVIDIA's kernel driver, from its own file; None without that file (WSL2, Jetson, no GPU)."""
    try:
        words = file.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), None)


if __name__ == "__main__":
    main()
