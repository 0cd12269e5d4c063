"""Carries out the steps, each in a process of its own, and goes on whatever happens to one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, TextIO

from tests.gpu.check.plan import Step
from tests.gpu.check.report import Finding
from tests.gpu.check.target import ROOT, Target

SPARE: Final = 10.0  # seconds between the end that a step is told and the end that it is given
LEAST: Final = 15.0  # seconds in which a step is worth beginning
DRY_AT_ONCE: Final = 2
DRY_SECONDS: Final = 240.0  # for one step on a machine that does other things, too


@dataclass
class Tally:
    """Prints lines as they come and counts them."""

    out: TextIO
    good: int = 0
    bad: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def line(self, text: str) -> bool:
        """Whether this is a finding; what is none is not printed."""
        try:
            told: dict[str, Any] = json.loads(text)
            name, ok = f"{told['step']}: {told['name']}", bool(told["ok"])
        except (ValueError, KeyError, TypeError):
            return False
        with self._lock:
            self.out.write(text if text.endswith("\n") else text + "\n")
            self.out.flush()
            if ok:
                self.good += 1
            else:
                self.bad.append(name)
        return True


def conduct(target: Target, steps: Sequence[Step], seconds: float, out: TextIO) -> Tally:
    """All steps within `seconds`: one after the other on a real device, whose times mean something."""
    tally, until = Tally(out), time.monotonic() + seconds
    with ThreadPoolExecutor(DRY_AT_ONCE if target.dry else 1) as pool:
        for future in [pool.submit(_carry_out, target, step, until, tally) for step in steps]:
            future.result()
    return tally


def _carry_out(target: Target, step: Step, until: float, tally: Tally) -> None:
    left = until - time.monotonic()
    if left < LEAST + SPARE:
        tally.line(Finding(step.name, "time", detail="the seconds of the whole check are over").line())
        return
    seconds = min(DRY_SECONDS if target.dry else step.seconds, left - SPARE)
    own = replace(target, folder=target.folder / step.name)  # what steps play at the same time are different devices
    own.folder.mkdir()
    began = time.monotonic()
    findings, code, last = _performed(own, step, seconds, tally)
    shutil.rmtree(own.folder, ignore_errors=True)
    took = time.monotonic() - began
    detail = f"ended with {code} after {took:.0f} of {seconds:.0f} s{f': {last}' if code else ''}"
    tally.line(Finding(step.name, "the whole step", code == 0 and findings > 0, took, took, "s", detail).line())


def _performed(target: Target, step: Step, seconds: float, tally: Tally) -> tuple[int, int, str]:
    """How many findings there were, the exit status, and what was printed last."""
    command = [sys.executable, "-m", "tests.gpu.check.perform", step.name, target.text(), str(seconds)]
    with (
        tempfile.TemporaryFile("w+") as printed,
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=printed,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        timer = threading.Timer(seconds + SPARE, _end, [process.pid])
        timer.start()
        assert process.stdout
        findings = sum(map(tally.line, process.stdout))
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        timer.cancel()
        _end(process.pid)  # while its number is still taken
        code = process.wait()
        printed.seek(0)
        return findings, code, " | ".join(printed.read().strip().splitlines()[-3:])


def _end(group: int) -> None:
    """Whatever a step has left; its zygotes and runners die with it."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
