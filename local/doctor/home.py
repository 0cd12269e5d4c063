"""This machine: the folder of the service, and the disk below it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Final

from core.settings import Settings
from local.doctor.checks import CheckResult, check_free_space, failed_check, passed_check, warning_check

FEW_FILES: Final = 1000


def home_checks(settings: Settings) -> Iterator[CheckResult]:
    """The folder for everything that is kept: there, writable, with room."""
    home = settings.home
    if not home.is_dir():
        if home.exists():
            yield failed_check("home", f"{home} is no folder", "move it away, or name another folder by BASIN_HOME")
        else:
            yield warning_check("home", f"{home} is not there yet", "`basin up` or `basin migrate` makes it")
        return
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as probe:
            probe.write(b"?")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        do = f"let user {os.getuid()} write there, or name another folder by BASIN_HOME"
        yield failed_check("home", f"{home} cannot be written: {error.strerror}", do)
    else:
        yield passed_check("home", f"{home} can be written")
    yield check_free_space("disk", shutil.disk_usage(home).free)
    system = os.statvfs(home)
    if system.f_files and system.f_favail < FEW_FILES:
        yield failed_check(
            "disk", f"room for {system.f_favail} more files", "remove files: the file system counts them too"
        )
