"""What a look at one part found, and looks that come back in time whatever is away."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from core.redact import redact_secrets

PATIENCE_SECONDS: Final = 5.0
SPARE_BYTES: Final = 1 << 30  # less free space than this is worth a warning
LEAST_BYTES: Final = 100 << 20


class CheckStatus(StrEnum):
    """From good to bad."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at: what was found, and what to do where that is not as it should be."""

    name: str
    verdict: CheckStatus
    found: str
    do: str | None = None


def passed_check(name: str, found: str) -> CheckResult:
    return CheckResult(name, CheckStatus.OK, found)


def warning_check(name: str, found: str, do: str) -> CheckResult:
    """The service works all the same, or will once it has been started."""
    return CheckResult(name, CheckStatus.WARNING, found, do)


def failed_check(name: str, found: str, do: str) -> CheckResult:
    """The service does not work like this."""
    return CheckResult(name, CheckStatus.FAIL, found, do)


def worst_status(checks: Sequence[CheckResult]) -> CheckStatus:
    """The verdict on all of them together."""
    order = list(CheckStatus)
    return max((check.verdict for check in checks), key=order.index, default=CheckStatus.OK)


def first_line(error: BaseException) -> str:
    """The first line of an error, of the driver's own where SQLAlchemy has wrapped it."""
    inner = getattr(error, "orig", None) or error
    lines = str(inner).strip().splitlines()
    return redact_secrets(lines[0] if lines else type(inner).__name__)


def check_free_space(name: str, free: int) -> CheckResult:
    """Whether so many bytes of free space will do."""
    text = f"{free / 1e9:.1f} GB free"
    do = "make room: checkpoints, the database and logs grow"
    if free < LEAST_BYTES:
        return failed_check(name, text, do)
    return warning_check(name, text, do) if free < SPARE_BYTES else passed_check(name, text)


@dataclass(frozen=True, slots=True)
class CheckContext:
    """A part to look at. `do` is the advice where it fails in a way that it does not foresee, or does not answer.

    Where it fails like that, a look `between` two parts says nothing: the looks at each of them do.
    """

    name: str
    at: Callable[[], Iterator[CheckResult]]
    do: str
    seconds: float = PATIENCE_SECONDS
    between: bool = False


@dataclass(slots=True)
class _RunningCheck:
    """A look on its way, in a thread that nobody has to wait for."""

    look: CheckContext
    found: list[CheckResult] = field(default_factory=list)
    over: bool = False

    def run_check(self) -> None:
        try:
            for check in self.look.at():
                self.found.append(check)
        except Exception as error:  # noqa: BLE001 - whatever is broken there is what the report is about
            if not self.look.between:
                self.found.append(failed_check(self.look.name, first_line(error), self.look.do))
        self.over = True


def run_checks(looks: Sequence[CheckContext]) -> Iterator[CheckResult]:
    """What all of them find, in their order. They look at the same time, each for its own seconds and no longer."""
    begun = time.monotonic()
    under = [_RunningCheck(look) for look in looks]
    threads = [threading.Thread(target=one.run_check, name=f"doctor-{one.look.name}", daemon=True) for one in under]
    for thread in threads:
        thread.start()
    for one, thread in zip(under, threads, strict=True):
        thread.join(max(0.0, begun + one.look.seconds - time.monotonic()))
        hangs = not one.over
        yield from list(one.found)
        if hangs and not one.look.between:
            yield failed_check(one.look.name, f"no answer within {one.look.seconds:g} s", one.look.do)
