"""Which devices a worker may offer: those of CUDA_VISIBLE_DEVICES if it is set, else all of the machine. UUIDs are
preferred to ordinals, which change when a device fails.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from worker.devices.monitor import DeviceMonitor

NOTHING: Final = frozenset({"", "none", "void", "nodevfiles"})
EVERYTHING: Final = "all"


def candidate_devices(
    environ: Mapping[str, str], monitor: DeviceMonitor, ask_torch: Callable[[], list[str]]
) -> list[str]:
    """One token for each device, fit for CUDA_VISIBLE_DEVICES, each device once. `ask_torch` is the last resort."""
    chosen = chosen_devices(environ.get("CUDA_VISIBLE_DEVICES"))
    if chosen == []:
        return []
    uuids = monitor.list_uuids()
    if chosen is None:
        return uuids or ask_torch()
    return list(dict.fromkeys(_full_name(token, uuids) for token in chosen))


def chosen_devices(value: str | None) -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names, as CUDA reads it: up to the first entry that names nothing. None: all devices.

    Two things differ from CUDA: `all`, which container tools use, means all; a device named twice counts once.
    """
    if value is None or value.strip().lower() == EVERYTHING:
        return None
    found: list[str] = []
    for entry in value.split(","):
        token = entry.strip()
        if token.lower() in NOTHING or not _names_a_device(token):
            break
        found.append(token)
    return list(dict.fromkeys(found))


def _names_a_device(token: str) -> bool:
    return token.isdecimal() or token.startswith(("GPU-", "MIG-"))


def _full_name(token: str, uuids: Sequence[str]) -> str:
    """The UUID of a device that is named by its number or by the beginning of its UUID."""
    if token.isdecimal():
        # The numbers are those of whole GPUs; with MIG instances among them only CUDA can resolve them.
        whole = not any(uuid.startswith("MIG-") for uuid in uuids)
        return uuids[int(token)] if whole and int(token) < len(uuids) else token
    matching = [uuid for uuid in uuids if uuid.startswith(token)]
    return matching[0] if len(matching) == 1 else token
