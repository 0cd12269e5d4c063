"""One step in a process of its own.

python -m tests.gpu.check.perform STEP TARGET SECONDS     prints findings, see report.py
"""

import sys
import time
from importlib import import_module

from tests.gpu.check.plan import STEPS
from tests.gpu.check.report import Report
from tests.gpu.check.target import Target


def main() -> None:
    name, target, seconds = sys.argv[1], Target.read(sys.argv[2]), float(sys.argv[3])
    report = Report(name, time.monotonic() + seconds)
    if not target.dry:
        target.use()
    step = next(each for each in STEPS if each.name == name)
    getattr(import_module(f"tests.gpu.check.steps.{step.module}"), step.function)(target, report)


if __name__ == "__main__":
    main()
