"""Distributions with plug-ins: the example, installed as an operator does it, and small ones that a test writes."""

import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from tests.support.service import ROOT

EXAMPLE = ROOT / "examples" / "plugin"


def install(source: Path, target: Path) -> Path:
    """The folder to import it from. Nothing is fetched: what builds it is installed here."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def write_distribution(
    target: Path, name: str, files: Mapping[str, str], entry_points: Mapping[str, str], version: str = "1.0"
) -> Path:
    """As pip would have installed it; `entry_points` are group -> import string."""
    lines = []
    for path, content in files.items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        lines.append(f"{path},sha256={sha256(content.encode()).hexdigest()},{len(content)}")
    folder = target / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    groups = (f"[{group}]\nof_{name.replace('-', '_')} = {value}\n" for group, value in entry_points.items())
    (folder / "entry_points.txt").write_text("\n".join(groups))
    (folder / "RECORD").write_text("\n".join([*lines, f"{folder.name}/METADATA,,", f"{folder.name}/RECORD,,"]))
    return target
