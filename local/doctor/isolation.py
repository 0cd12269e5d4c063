"""How far a worker on this machine can isolate the parsers of uploaded files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from core.process import without_secrets
from core.settings import Settings
from local.doctor.checks import PATIENCE_SECONDS, CheckResult, failed_check, passed_check, warning_check

NAME: Final = "parsers"
PROBE: Final = "worker.prepare.confine"
NEEDED: Final = {
    "landlock": "Linux 5.13 or later with landlock in /sys/kernel/security/lsm",
    "seccomp": "Linux with seccomp filters on x86_64 or aarch64",
}
SETTING: Final = "BASIN_PREPARE_CONFINED"


def isolation_checks(settings: Settings, environment: dict[str, str]) -> Iterator[CheckResult]:
    """A process of its own isolates itself, as a parser does, and reports what is in force."""
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-I", "-m", PROBE],
        env=without_secrets(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS - 0.5,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        found = f"no parser can be isolated: {lines[-1] if lines else f'exit status {done.returncode}'}"
        yield failed_check(NAME, found, "report this line; no dataset can be prepared on this machine")
        return
    yield check_isolation(json.loads(done.stdout), settings)


def check_isolation(walls: list[str], settings: Settings) -> CheckResult:
    """The result for the isolation in force; a missing kind is a failure only where the operator requires all."""
    kinds = {wall.partition("-")[0] for wall in walls}
    missing = [wall for wall in NEEDED if wall not in kinds]
    if not missing:
        return passed_check(NAME, f"uploaded files are read with {', '.join(walls)}")
    found = f"uploaded files are read with {', '.join(walls)} alone, without {' and '.join(missing)}"
    do = f"needs {'; '.join(NEEDED[wall] for wall in missing)}"
    if settings.prepare_confined == "required":
        return failed_check(NAME, f"{found}: {SETTING}=required refuses them all", do)
    return warning_check(NAME, found, f"{do}; or upload only files that you trust")
