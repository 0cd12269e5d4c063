"""Runners with a user of their own: who that may be, and what is shared with it. The compose stack runs it for real."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from core.errors import Misconfigured
from core.recipe.data.iris import Iris
from core.recipe.data.materialise import materialise_dataset
from core.settings import Settings
from worker import runner_user
from worker.provision import Scratch
from worker.runner_user import RunnerUser, find_user, prepare_runner_user

ALL = (1 << 41) - 1
OTHER = next(each for each in pwd.getpwall() if each.pw_uid not in {0, os.getuid()})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def user() -> RunnerUser:
    """Somebody of our own group: a folder may be given to that by anybody."""
    return RunnerUser(OTHER.pw_uid, os.getgid(), "/tmp")  # noqa: S108 - as the image has it


def test_by_default_runners_are_who_the_worker_is(tmp_path: Path) -> None:
    assert prepare_runner_user(Settings.model_validate({"home": tmp_path / "home"})) is None
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", [OTHER.pw_name, str(OTHER.pw_uid)])
def test_a_user_is_named_or_numbered(name: str) -> None:
    assert find_user(name) == RunnerUser(OTHER.pw_uid, OTHER.pw_gid, OTHER.pw_dir)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("no-such-user", "there is no user"), ("4000000000", "there is no user"), ("0", "root|itself"), ("root", "root")]
    + ([(str(os.getuid()), "the worker itself")] if os.getuid() else []),
)
def test_nobody_and_root_and_the_worker_itself_are_refused(name: str, problem: str) -> None:
    with pytest.raises(Misconfigured, match=problem) as refused:
        find_user(name)
    assert "BASIN_RUNNER_USER" in str(refused.value)


@pytest.mark.parametrize("lacking", [5, 6, 7])
def test_a_worker_that_cannot_change_users_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: int
) -> None:
    """Without KILL its runners would outlive it; without the others there would be none."""
    monkeypatch.setattr(runner_user, "_effective_capabilities", lambda: ALL & ~(1 << lacking))
    settings = Settings.model_validate({"home": tmp_path, "runner_user": OTHER.pw_name})
    with pytest.raises(Misconfigured, match="capabilities KILL, SETGID and SETUID"):
        prepare_runner_user(settings)


def test_runners_come_to_scratch_and_datasets_and_to_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: RunnerUser
) -> None:
    monkeypatch.setattr(runner_user, "_effective_capabilities", lambda: ALL)
    monkeypatch.setattr(runner_user, "find_user", lambda _: user)
    settings = Settings.model_validate({"home": tmp_path / "home", "runner_user": "somebody"})
    settings.datasets.mkdir(parents=True)
    (settings.datasets / "old").touch(0o600)
    assert prepare_runner_user(settings) == user
    secret = settings.home / "secret"
    secret.touch()
    dataset = materialise_dataset(Iris(), settings.datasets)
    assert [mode(path) for path in (settings.home, settings.scratch, settings.datasets)] == [0o710, 0o710, 0o2710]
    assert [mode(path) for path in (settings.datasets / "old", dataset, secret)] == [0o640] * 3
    settings.home.chmod(0o700)


def test_a_runner_writes_in_out_alone_and_the_worker_removes_it(tmp_path: Path, user: RunnerUser) -> None:
    os.umask(runner_user.UMASK)
    scratch = Scratch(tmp_path / "scratch", "w", user)
    scratch.open()
    with scratch.attempt_folder("job_x", 1) as folder:
        folder.resume.mkdir()
        (folder.resume / "weights").touch()
        (folder.out / "checkpoint").mkdir()
        modes = [mode(path) for path in (folder.path.parent, folder.path, folder.out, folder.stderr)]
        assert modes == [0o710, 0o2710, 0o2770, 0o660]
        assert [mode(path) for path in (folder.resume, folder.resume / "weights")] == [0o2750, 0o640]
        assert mode(folder.path.parent / "lock") == 0o600
        found = [folder.path, folder.out / "checkpoint", folder.resume / "weights"]
        assert {path.stat().st_gid for path in found} == {user.gid}
    assert not folder.path.exists()
    scratch.close()
