"""The tree works anywhere: no package host, no machine's own paths, no build of one machine in a lock."""

import re
import tomllib
from pathlib import Path

from tests.architecture import tree

# Written so that this file does not match itself.
HOSTS = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|anaconda\.(?:org|com)|npmjs\.(?:org|com)|registry\.yarnpkg"
    r"|(?:static\.)?crates\.io|proxy\.golang\.org|huggingface\.co"
)
TORCH_INDEX = "https://" + "download" + ".pytorch.org/whl/cpu"
HOME = re.compile(r"(?<![\w.~}$)-])/(?:work|home|Users|root|workspaces?)/[\w.-]+")
URLS = re.compile(r"https?://")


def found(pattern: re.Pattern[str], path: Path) -> list[str]:
    content = tree.text(path) or ""
    return [
        f"{tree.name(path)}:{number} {match.group()}"
        for number, line in enumerate(content.splitlines(), start=1)
        for match in pattern.finditer(line)
    ]


def test_the_tree_names_no_package_host() -> None:
    """An index address in a lock or a script breaks mirrors, proxies and offline installs, for somebody else.

    One exception: the README's line for CPU-only PyTorch may name PyTorch's own index, once.
    """
    offenders = [spot for path in tree.files() if path.name != "README.md" for spot in found(HOSTS, path)]
    readme = (tree.ROOT / "README.md").read_text(encoding="utf-8")
    assert offenders == []
    assert readme.count(TORCH_INDEX) <= 1
    assert HOSTS.findall(re.sub(r"--(?:extra-)?index-url " + re.escape(TORCH_INDEX), "", readme)) == []


def test_the_tree_names_no_machine() -> None:
    """A path of the author's machine works on exactly one machine, and the tests pass there."""
    assert [spot for path in tree.files() for spot in found(HOME, path)] == []


def test_locks_install_anywhere() -> None:
    """A lock resolved beside a CPU build pins `torch==2.x+cpu`, which no public index can serve to a stranger."""
    locks = sorted((tree.ROOT / "deploy" / "locks").glob("*.lock"))
    assert {path.stem for path in locks} >= {"sdk", "api", "worker", "dev"}
    assert [spot for path in locks for spot in found(re.compile(r"\+(?:cpu|cu\d+)"), path)] == []
    assert [spot for path in locks for spot in found(URLS, path)] == []
    unpinned = [
        f"{path.name}: {line}"
        for path in locks
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.lstrip().startswith("#") and "==" not in line
    ]
    assert unpinned == []


def test_the_api_lock_holds_no_torch() -> None:
    """The api runs on machines without a GPU's worth of disk; its lock is how that is promised to operators."""
    heavy = {"torch", "numpy", "scikit-learn", "scipy", "safetensors", "lightning"}
    for role in ("sdk", "api"):
        lines = (tree.ROOT / "deploy" / "locks" / f"{role}.lock").read_text(encoding="utf-8").splitlines()
        pinned = {line.split("==")[0] for line in lines if "==" in line and not line.startswith(" ")}
        assert pinned & heavy == set(), role


def test_the_lock_of_workers_has_what_the_package_requires() -> None:
    """An image is built from the lock: a library that only pyproject.toml names would be missing in it."""
    project = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = (tree.ROOT / "deploy" / "locks" / "worker.in").read_text(encoding="utf-8").splitlines()
    assert set(project["optional-dependencies"]["worker"]) <= set(named)
