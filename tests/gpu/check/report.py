"""What a step found, one JSON object a line."""

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

MOST_DETAIL = 600  # characters


@dataclass
class Finding:
    """One thing that was looked at. `value` is in `unit`s where it is a number; `detail` is for people."""

    step: str
    name: str
    ok: bool = False
    seconds: float = 0.0
    value: float | None = None
    unit: str | None = None
    detail: str = ""

    def says(self, ok: bool, detail: str = "", value: float | None = None, unit: str | None = None) -> None:
        """The verdict; a finding about which nothing is said is not ok."""
        self.ok, self.detail, self.value, self.unit = ok, detail, value, unit

    def line(self) -> str:
        """As it is printed; numbers that JSON does not know are told in `detail`."""
        told = asdict(self) | {"detail": self.detail[:MOST_DETAIL], "seconds": round(self.seconds, 3)}
        return json.dumps(_finite(told))


def _finite(told: dict[str, Any]) -> dict[str, Any]:
    value = told["value"]
    if value is None or abs(value) < float("inf"):
        return told
    return told | {"value": None, "detail": f"{value}; {told['detail']}"}


@dataclass
class Report:
    """Prints findings as they come. `until` is when the step has to be done, by the monotonic clock."""

    step: str
    until: float
    out: TextIO = field(default_factory=lambda: sys.stdout)

    def left(self) -> float:
        """Seconds that the step still has."""
        return max(0.0, self.until - time.monotonic())

    def says(self, name: str, ok: bool, detail: str = "", value: float | None = None, unit: str | None = None) -> None:
        """A finding about what has been done already."""
        with self.finding(name) as found:
            found.says(ok, detail, value, unit)

    @contextmanager
    def finding(self, name: str) -> Iterator[Finding]:
        """Measures what is done inside; an exception is a finding that is not ok, and the step goes on."""
        found, began = Finding(self.step, name), time.monotonic()
        try:
            yield found
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is what was found
            last = traceback.extract_tb(error.__traceback__)[-1]
            found.says(ok=False, detail=f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
        found.seconds = time.monotonic() - began
        self.out.write(found.line() + "\n")
        self.out.flush()
