"""What the API costs before its first request: `import api.app` in fresh interpreters, and a start to the first answer.

    python bench/api_import.py [repeats]

Prints medians: CPU seconds and resident memory of the import (aims: below 1 s, below 150 MB), the same for the
frameworks alone, and the seconds of wall-clock time from exec of `python -m api` to its first answer.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from core.db.migrate import upgrade_schema

ROOT = Path(__file__).resolve().parents[1]
PROBE = """
import resource, time
import {modules}
usage = resource.getrusage(resource.RUSAGE_SELF)
print(time.process_time(), usage.ru_maxrss / (1 if __import__("sys").platform == "darwin" else 1024) / 1.0)
"""
HEAVY = (
    "import sys, api.app; print([m for m in ('torch', 'numpy', 'celery', 'alembic', 'sklearn') if m in sys.modules])"
)


def imported(modules: str) -> tuple[float, float]:
    """CPU seconds and MiB of an interpreter that only imports these modules."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(modules=modules)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, mib = done.stdout.split()
    return float(seconds), float(mib)


def first_answer() -> float:
    """Seconds of wall-clock time from exec to the first 200 of /healthz."""
    with tempfile.TemporaryDirectory() as home, (Path(home) / "log").open("w+") as log:
        environment = os.environ | {"BASIN_HOME": home}
        upgrade_schema(f"sqlite:///{home}/basin.db")
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "api", "--port", "0"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            while not (found := re.search(r"listening on (http://[^\s\"]+)", Path(log.name).read_text())):
                if process.poll() is not None:
                    raise SystemExit(Path(log.name).read_text())
                time.sleep(0.005)
            while True:
                try:
                    httpx2.get(f"{found[1]}/healthz").raise_for_status()
                except httpx2.TransportError:
                    time.sleep(0.005)
                else:
                    return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for label, modules in (("import fastapi, sqlalchemy", "fastapi, sqlalchemy"), ("import api.app", "api.app")):
        runs = [imported(modules) for _ in range(repeats)]
        seconds, mib = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{label:28} {seconds:6.3f} s CPU   {mib:6.1f} MiB")
    print(f"{'exec to the first answer':28} {statistics.median(first_answer() for _ in range(repeats)):6.3f} s")
    heavy = subprocess.run([sys.executable, "-c", HEAVY], cwd=ROOT, capture_output=True, text=True, check=True)
    print(f"heavy modules loaded: {heavy.stdout.strip()}")


if __name__ == "__main__":
    main()
