"""Whether other users of this machine may read the files of the service."""

import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from core.settings import Settings
from core.store.local import folder_of_url
from local.doctor.checks import CheckResult, passed_check, warning_check

NAME: Final = "permissions"


def permission_checks(settings: Settings) -> Iterator[CheckResult]:
    """New files are readable by their owner alone; files of an earlier folder keep their permissions."""
    found = [path for path in data_paths(settings) if path.exists() and is_exposed(path)]
    if not found:
        yield passed_check(NAME, "no other user can read home, database, store or logs")
        return
    listed = ", ".join(map(str, found))
    tops = [path for path in found if not any(other in path.parents for other in found)]
    do = f"unless this is intended: chmod -R go= {' '.join(shlex.quote(str(path)) for path in tops)}"
    yield warning_check(NAME, f"other users of this machine can read {listed}", do)


def data_paths(settings: Settings) -> list[Path]:
    """The paths of database, weights and logs, as far as they are on this machine."""
    url = make_url(settings.resolved_database_url())
    file = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
    database = [file.with_name(f"{file.name}{suffix}") for suffix in ("", "-wal", "-shm")] if file else []
    store = folder_of_url(settings.resolved_store_url())
    return [settings.home, *database, *([store] if store else []), settings.logs]


def is_exposed(path: Path) -> bool:
    """Whether its group or all users may read it and enter every folder above it."""
    found, above = path.stat(), [folder.stat() for folder in path.resolve().parents]
    if found.st_mode & stat.S_IROTH and all(folder.st_mode & stat.S_IXOTH for folder in above):
        return True
    passable = (
        folder.st_mode & stat.S_IXOTH or (folder.st_mode & stat.S_IXGRP and folder.st_gid == found.st_gid)
        for folder in above
    )
    return bool(found.st_mode & stat.S_IRGRP) and all(passable)
