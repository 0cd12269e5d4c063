"""scripts/setup decides when there is something to do. A stand-in for Python writes down what it was ordered."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

# As `python` it passes for 3.11, makes environments that hold a copy of it, and "installs" by writing down what it was
# asked; the file `broken` beside the orders makes installing fail, as a lost network does.
STAND_IN = """#!/usr/bin/env bash
case "$1 $2" in
  "-c "*) [ ! -e "{orders}.old" ] ;;
  "-m venv") rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo "#!$4/bin/python" > "$4/bin/pip"
             echo "venv $4" >> "{orders}" ;;
  "-m pip") echo "${{*: -2}}" >> "{orders}"; [ ! -e "{orders}.broken" ] || exit 1
            touch "${{0%/python}}/basin"; chmod +x "${{0%/python}}/basin" ;;
esac
"""


class Clone:
    """A fresh clone, as far as scripts/setup looks at it."""

    def __init__(self, folder: Path, orders: Path) -> None:
        self.folder = folder
        self.orders = orders
        (folder / "scripts").mkdir(parents=True)
        (folder / "sdk").mkdir()
        (folder / "deploy" / "locks").mkdir(parents=True)
        for path in ("scripts/setup", "pyproject.toml", "sdk/pyproject.toml"):
            shutil.copy(ROOT / path, folder / path)
        for role in ("worker", "dev"):
            (folder / "deploy" / "locks" / f"{role}.lock").write_text("one==1\n")
        self.python = orders.with_name("python-of-the-machine")
        self.python.write_text(STAND_IN.format(orders=orders))
        self.python.chmod(0o755)

    def setup(self, *arguments: str) -> tuple[int, list[str]]:
        """Exit status, and what was ordered."""
        self.orders.unlink(missing_ok=True)
        tools = {"PATH": os.defpath, "PYTHON": str(self.python)}
        done = subprocess.run(
            [str(self.folder / "scripts" / "setup"), *arguments], env=tools, capture_output=True, text=True, check=False
        )
        self.said = done.stdout + done.stderr
        return done.returncode, self.orders.read_text().splitlines() if self.orders.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "a clone", tmp_path / "orders")


def test_the_first_setup_installs_and_the_second_has_nothing_to_do(clone: Clone) -> None:
    code, orders = clone.setup()
    assert (code, orders) == (0, [f"venv {clone.folder}/.venv", "-r deploy/locks/worker.lock", "-e sdk"])
    assert clone.setup() == (0, [])
    assert clone.said == ""


@pytest.mark.parametrize("path", ["deploy/locks/worker.lock", "pyproject.toml", "sdk/pyproject.toml"])
def test_what_changed_is_installed_again(clone: Clone, path: str) -> None:
    clone.setup()
    with (clone.folder / path).open("a") as file:
        file.write("# new\n")
    assert clone.setup() == (0, ["-r deploy/locks/worker.lock", "-e sdk"])
    assert clone.setup() == (0, [])


def test_a_setup_that_was_cut_short_starts_again(clone: Clone) -> None:
    broken = Path(f"{clone.orders}.broken")
    broken.touch()
    assert clone.setup()[0] != 0
    broken.unlink()
    assert clone.setup() == (0, ["-r deploy/locks/worker.lock", "-e sdk"])
    shutil.rmtree(clone.folder / ".venv" / "bin")  # and one that was cut short earlier
    assert clone.setup()[1][0].startswith("venv ")


def test_dev_holds_what_a_worker_needs_and_stays_dev(clone: Clone) -> None:
    clone.setup()
    assert clone.setup("dev") == (0, ["-r deploy/locks/dev.lock", "-e sdk"])
    assert clone.setup() == (0, [])
    assert clone.setup("dev") == (0, [])
    (clone.folder / "pyproject.toml").write_text("[project]\n")
    assert clone.setup() == (0, ["-r deploy/locks/dev.lock", "-e sdk"])


def test_a_clone_that_moved_gets_a_new_environment(clone: Clone) -> None:
    """Scripts in an environment carry its old address."""
    clone.setup()
    moved = clone.folder.with_name("moved")
    clone.folder.rename(moved)
    clone.folder = moved
    code, orders = clone.setup()
    assert (code, orders[0]) == (0, f"venv {moved}/.venv")


def test_a_machine_without_a_fitting_python_is_told_so(clone: Clone) -> None:
    Path(f"{clone.orders}.old").touch()
    (clone.folder / "nothing").mkdir()
    for tool in ("bash", "dirname", "cat", "cksum", "grep", "rm"):
        (clone.folder / "nothing" / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        [str(shutil.which("bash")), str(clone.folder / "scripts" / "setup")],
        env={"PATH": str(clone.folder / "nothing"), "PYTHON": str(clone.python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr


def test_an_unknown_role_is_refused(clone: Clone) -> None:
    code, orders = clone.setup("wokrer")
    assert (code, orders) == (2, [])
    assert "no such role: wokrer" in clone.said


@pytest.mark.parametrize("script", ["setup", "check", "test", "serve", "demo"])
def test_the_makefile_only_calls_scripts(script: str) -> None:
    recipes = [line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t")]
    assert f"@scripts/{script}" in recipes
    assert all(recipe.startswith("@scripts/") and " " not in recipe for recipe in recipes)
