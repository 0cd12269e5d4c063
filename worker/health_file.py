"""A file that says whether a worker can run jobs, for the health check of a container: one `grep` instead of a Python
that starts every three seconds. Its first line is `ready`, `starting` or `out of service`; below it is one line for
each slot that is out of service. Without a file (the setting BASIN_WORKER_STATE) nothing is written.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from core.jobs.health.workers import SlotState, SlotUsage
from core.lifecycle import LIGHT

log = logging.getLogger(__name__)

READY: Final = "ready"
STARTING: Final = "starting"
OUT_OF_SERVICE: Final = "out of service"
_MODE: Final = 0o644  # a health check is another user, and there is nothing secret in it


class HealthFile:
    """A file that is replaced atomically when its text has changed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written: str | None = None

    def write(self, text: str) -> None:
        """Best effort: a failure is logged, and the next call tries again."""
        if self._path is None or text == self._written:
            return
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            aside.write_text(text, encoding="utf-8")
            aside.chmod(_MODE)
            aside.replace(self._path)
        except OSError as error:
            log.warning("%s (BASIN_WORKER_STATE) cannot be written: %s", self._path, error)
            return
        self._written = text

    def remove(self) -> None:
        """Remove the file: the worker has stopped."""
        if self._path is not None and self._written is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def health_text(tallies: Mapping[str, SlotUsage], states: Iterable[SlotState], *, ready: bool) -> str:
    """The text of the file; `ready`: runners can be started."""
    verdict = STARTING if not ready else READY if _any_slot(tallies) else OUT_OF_SERVICE
    out = [state for state in states if not state.in_service]
    return "".join(f"{line}\n" for line in (verdict, *map(_slot_line, out)))


def _any_slot(tallies: Mapping[str, SlotUsage]) -> bool:
    """Whether a slot is in service; the light lane trains nothing."""
    return any(tally.slots for kind, tally in tallies.items() if kind != LIGHT)


def _slot_line(state: SlotState) -> str:
    detail = " ".join((state.detail or "").split())
    return f"{state.device or f'a {state.kind} slot'} is out of service ({state.reason}): {detail}"
