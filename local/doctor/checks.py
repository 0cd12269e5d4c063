"""Checks and their results. A check ends within its time even if what it checks does not answer."""

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
    """The result of one check: what was found, and the remedy (`do`) where that is not correct."""

    name: str
    verdict: CheckStatus
    found: str
    do: str | None = None


def passed_check(name: str, found: str) -> CheckResult:
    return CheckResult(name, CheckStatus.OK, found)


def warning_check(name: str, found: str, do: str) -> CheckResult:
    """A warning: the service works all the same, or will once it has been started."""
    return CheckResult(name, CheckStatus.WARNING, found, do)


def failed_check(name: str, found: str, do: str) -> CheckResult:
    """A failure: the service does not work like this."""
    return CheckResult(name, CheckStatus.FAIL, found, do)


def worst_status(checks: Sequence[CheckResult]) -> CheckStatus:
    """The worst status among them; OK for none."""
    order = list(CheckStatus)
    return max((check.verdict for check in checks), key=order.index, default=CheckStatus.OK)


def first_line(error: BaseException) -> str:
    """The first line of an error without secrets; of the driver's error where SQLAlchemy has wrapped it."""
    inner = getattr(error, "orig", None) or error
    lines = str(inner).strip().splitlines()
    return redact_secrets(lines[0] if lines else type(inner).__name__)


def check_free_space(name: str, free: int) -> CheckResult:
    """Whether `free` bytes of free space are enough."""
    text = f"{free / 1e9:.1f} GB free"
    do = "free some space: checkpoints, the database and logs grow"
    if free < LEAST_BYTES:
        return failed_check(name, text, do)
    return warning_check(name, text, do) if free < SPARE_BYTES else passed_check(name, text)


@dataclass(frozen=True, slots=True)
class CheckContext:
    """One check to run. `do` is the remedy where it raises an unexpected error, or does not answer in time.

    A check `between` two parts reports neither of these: the checks of the single parts do.
    """

    name: str
    at: Callable[[], Iterator[CheckResult]]
    do: str
    seconds: float = PATIENCE_SECONDS
    between: bool = False


@dataclass(slots=True)
class _RunningCheck:
    """A check that runs in a daemon thread, so that a check that hangs does not keep the command from ending."""

    context: CheckContext
    found: list[CheckResult] = field(default_factory=list)
    over: bool = False

    def run_check(self) -> None:
        try:
            for check in self.context.at():
                self.found.append(check)
        except Exception as error:  # noqa: BLE001 - any error of a check belongs into the report
            if not self.context.between:
                self.found.append(failed_check(self.context.name, first_line(error), self.context.do))
        self.over = True


def run_checks(contexts: Sequence[CheckContext]) -> Iterator[CheckResult]:
    """Run all checks at the same time, each for its own `seconds` at most; yields their results in the given order."""
    begun = time.monotonic()
    under = [_RunningCheck(context) for context in contexts]
    threads = [threading.Thread(target=one.run_check, name=f"doctor-{one.context.name}", daemon=True) for one in under]
    for thread in threads:
        thread.start()
    for one, thread in zip(under, threads, strict=True):
        thread.join(max(0.0, begun + one.context.seconds - time.monotonic()))
        hangs = not one.over
        yield from list(one.found)
        if hangs and not one.context.between:
            yield failed_check(one.context.name, f"no answer within {one.context.seconds:g} s", one.context.do)
