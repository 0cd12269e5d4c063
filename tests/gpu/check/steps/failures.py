"""A context that breaks, and runners and zygotes that are killed in the middle of a kernel."""

import os
import signal
import time
from collections.abc import Callable

from tests.gpu.check.attempts import Attempt, Service, TooLate, service
from tests.gpu.check.injected import HELD
from tests.gpu.check.played import MIB
from tests.gpu.check.report import Report
from tests.gpu.check.steps.isolation import small
from tests.gpu.check.steps.memory import works
from tests.gpu.check.target import Target

SECONDS = 60.0
FREE_SECONDS = 30.0  # until the driver has cleaned up, at most
SLACK = 64 * MIB  # of memory that comes and goes with nobody's doing
TOLD = {
    "illegal-access": ("device_failed", "illegal memory access"),
    "device-assert": ("engine_error", "device-side assert"),  # a kernel's check: the job's own doing
}


def sticky(target: Target, report: Report) -> None:
    """Each error in a runner of its own; the zygote goes on."""
    with service(target) as found:
        zygote = found.launcher.pid
        for fault, (code, sign) in TOLD.items():
            with report.finding(f"{fault}: it is told") as error:
                _, ended = found.run("sticky", small(epochs=50), SECONDS, fault=fault)
                document = ended["error"] or {}
                fits = document.get("code") == code and sign in str(document.get("message"))
                error.says(fits, f"{ended['outcome']}: {document}")
            with report.finding(f"{fault}: the runner is gone") as gone:
                how = found.attempts[-1].process.wait(10.0)
                gone.says(how is not None, str(how))
            works(found, report, f"behind {fault}")
        report.says("the zygote is the same one", found.launcher.pid == zygote, f"{zygote}, {found.launcher.pid}")


def kills(target: Target, report: Report) -> None:
    """First a runner, then the zygote, while a kernel would run for another minute."""
    with service(target) as found:
        before = target.memory().free
        _killed(found, report, "a runner", before, lambda attempt: attempt.process.kill())
        works(found, report, "behind a killed runner")
        zygote = found.launcher.pid
        _killed(found, report, "the zygote", before, lambda _attempt: os.kill(zygote or 0, signal.SIGKILL))
        with report.finding("there is another zygote") as make_network:
            began = time.monotonic()
            ready = until(lambda: found.launcher.pid != zygote and found.launcher.wait_ready(0.1), SECONDS)
            make_network.says(ready, str(found.launcher.pid), time.monotonic() - began, "s")
        works(found, report, "behind a killed zygote")


def _killed(found: Service, report: Report, whom: str, before: int, kill: Callable[[Attempt], None]) -> None:
    with report.finding(f"{whom}, killed in a kernel: the process ends") as ended:
        attempt = found.begin("long", small(), fault="long-kernel")
        mark = attempt.assignment.scratch.with_suffix(".mark")
        if not until(mark.exists, SECONDS):
            raise TooLate("the kernel was not begun")
        held = before - found.target.memory().free
        began = time.monotonic()
        kill(attempt)
        how = attempt.process.wait(FREE_SECONDS)
        ended.says(how is not None and held > HELD / 2, f"{how}, {held / MIB:.0f} MiB held", _since(began), "s")
    with report.finding(f"{whom}, killed in a kernel: the memory is free") as free:
        fine = until(lambda: found.target.memory().free >= before - SLACK, found.target.choose(FREE_SECONDS, 5.0))
        left = (before - found.target.memory().free) / MIB
        free.says(fine, f"{left:.0f} MiB are missing, after the kill", _since(began), "s")


def _since(began: float) -> float:
    return time.monotonic() - began


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
