"""The folder of the service, and its disk."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Final

from core.settings import Settings
from local.doctor.checks import CheckResult, check_free_space, failed_check, passed_check, warning_check

FEW_FILES: Final = 1000


def home_checks(settings: Settings) -> Iterator[CheckResult]:
    """BASIN_HOME exists, is writable, and has free space and files."""
    home = settings.home
    if not home.is_dir():
        if home.exists():
            yield failed_check("home", f"{home} is no folder", "move it away, or set BASIN_HOME to another folder")
        else:
            yield warning_check("home", f"{home} does not exist yet", "`basin up` or `basin migrate` creates it")
        return
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as probe:
            probe.write(b"?")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        do = f"let user {os.getuid()} write there, or set BASIN_HOME to another folder"
        yield failed_check("home", f"{home} cannot be written: {error.strerror}", do)
    else:
        yield passed_check("home", f"{home} can be written")
    yield check_free_space("disk", shutil.disk_usage(home).free)
    system = os.statvfs(home)
    if system.f_files and system.f_favail < FEW_FILES:
        yield failed_check(
            "disk", f"room for {system.f_favail} more files", "remove files: the file system limits their number"
        )
