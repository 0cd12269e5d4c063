"""What other users may read: nothing that a server's command writes; `basin doctor` names what they could."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from core.settings import Settings
from local.doctor.checks import CheckStatus
from local.doctor.permissions import permission_checks
from tests.support.service import ROOT

# With each command something that it refuses early: what counts is what it has done by then.
REFUSED = {
    "up": ["up"],
    "migrate": ["migrate"],
    "api": ["api"],
    "worker": ["worker"],
    "doctor": ["doctor"],
    "verify": ["verify"],
    "key": ["key", "list"],
    "project": ["project", "list"],
}
PATHS = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk'}"}
UMASK = """
import os, sys
from basin.cli import main
sys.argv = ["basin", *sys.argv[1:]]
try:
    main()
finally:
    print(f"umask {os.umask(0):03o}")
"""


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A folder that everybody may come to, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="basin-open-home-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_every_servers_command_is_looked_at() -> None:
    """`run` writes what its user asked for, with the user's own umask."""
    assert {found.name for found in entry_points(group="basin.commands")} - {"run"} == set(REFUSED)


@pytest.mark.parametrize("command", REFUSED)
def test_a_servers_command_writes_for_its_user_alone(command: str, tmp_path: Path) -> None:
    """A home that was there before is open; the database, weights and logs that come into it are not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BASIN_", "AWS_"))}
    environment |= {
        "BASIN_DATABASE_URL_FILE": str(tmp_path / "none"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", UMASK, *REFUSED[command]],
        cwd=tmp_path,
        env=environment,
        umask=0o022,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "BASIN_DATABASE_URL_FILE names" in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "umask 077"


def test_a_database_in_an_open_home_is_closed(open_home: Path) -> None:
    """Before, the database was 0644 like everything that the shell's umask lets through."""
    environment = os.environ | PATHS | {"BASIN_HOME": str(open_home)}
    subprocess.run([sys.executable, "-m", "basin", "migrate"], env=environment, umask=0o022, check=True)
    assert (open_home / "basin.db").stat().st_mode & 0o777 == 0o600


def test_doctor_names_what_is_open_and_how_to_close_it(open_home: Path) -> None:
    settings = Settings.model_validate({"home": open_home})
    (database, store, logs) = (open_home / "basin.db", open_home / "store", open_home / "logs")
    database.touch(0o600)
    for folder in (store, logs):
        folder.mkdir(0o700)
    open_home.chmod(0o711)
    (closed,) = permission_checks(settings)
    assert closed.verdict is CheckStatus.OK, closed
    for path in (database, store, logs):
        mode = path.stat().st_mode & 0o777
        path.chmod(mode | 0o044)
        (found,) = permission_checks(settings)
        assert (found.verdict, found.found) == (CheckStatus.WARNING, f"other users of this machine can read {path}")
        assert found.do is not None
        assert found.do.endswith(f"chmod -R go= {path}")
        path.chmod(mode | 0o040)
        (grouped,) = permission_checks(settings)
        assert grouped == found, "its group is others too"
        path.chmod(mode)


def test_one_open_home_is_one_command(open_home: Path) -> None:
    settings = Settings.model_validate({"home": open_home})
    (open_home / "store").mkdir(0o755)
    (open_home / "basin.db").touch()
    (found,) = permission_checks(settings)
    assert found.found.endswith(f"can read {open_home}, {open_home / 'basin.db'}, {open_home / 'store'}")
    assert found.do is not None
    command = found.do.partition(": ")[2]
    assert command == f"chmod -R go= {open_home}"
    subprocess.run(["sh", "-c", command], check=True)
    (closed,) = permission_checks(settings)
    assert closed.verdict is CheckStatus.OK


def test_a_closed_folder_closes_what_is_in_it(open_home: Path) -> None:
    settings = Settings.model_validate({"home": open_home / "home"})
    (open_home / "home").mkdir(0o755)
    open_home.chmod(0o700)
    (found,) = permission_checks(settings)
    assert found.verdict is CheckStatus.OK
