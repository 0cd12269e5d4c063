"""Writes small data sets beside this file, to try uploads with: python examples/data/make.py flights shapes.

Without names it writes all of them. The same release of NumPy, pyarrow and Pillow writes the same bytes each time.
"""

import csv
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

HERE = Path(__file__).parent


def make_flights(path: Path) -> None:
    """A CSV file of 50,000 flights: a date, two categories, two numbers (3 % of the winds are missing), yes or no."""
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["day", "airline", "origin", "distance_km", "wind_ms", "late"])
        for n in range(50_000):
            airline, wind = rng.choice(["Ada", "Blue", "Condor"]), round(rng.gammavariate(4, 2), 1)
            late = wind + 5 * (airline == "Blue") + rng.gauss(0, 2) > 11
            day, origin = f"2025-{n % 12 + 1:02}-{n % 28 + 1:02}", f"A{rng.randrange(40):02}"
            known = wind if rng.random() > 0.03 else ""
            rows.writerow([day, airline, origin, rng.randrange(200, 4000), known, "yes" if late else "no"])


def make_shapes(path: Path) -> None:
    """A folder for each of two classes with 200 PNG files of 24 by 24 pixels."""
    rng = random.Random(0)
    for name in ("circle", "square"):
        folder = path / name
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(200):
            image = Image.new("RGB", (24, 24), (rng.randrange(80), rng.randrange(80), rng.randrange(80)))
            x, y, side = rng.randrange(2, 10), rng.randrange(2, 10), rng.randrange(7, 12)
            pen = ImageDraw.Draw(image)
            draw = pen.ellipse if name == "circle" else pen.rectangle
            draw((x, y, x + side, y + side), fill=(rng.randrange(120, 256), 200, rng.randrange(120, 256)))
            image.save(folder / f"{n:03}.png")


def make_waves(path: Path) -> None:
    """2,000 noisy sine waves of three frequencies as `x`, and which of the three as `y`."""
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 3
    times = np.linspace(0, 1, 32) + rng.random((2000, 1))
    x = np.sin(2 * np.pi * (y[:, None] + 1) * times) + rng.normal(0, 0.3, (2000, 32))
    np.savez(path, x=x.astype("float32"), y=y)


def make_houses(path: Path) -> None:
    """A Parquet file of 5,000 houses; the price follows from area and town."""
    rng = np.random.default_rng(0)
    area, town = rng.uniform(40, 200, 5000).round(1), rng.integers(0, 4, 5000)
    price = (2 * area + np.array([0, 60, 120, 30])[town] + rng.normal(0, 15, 5000)).round(1)
    names = np.array(["Ulm", "Bonn", "Jena", "Kiel"])[town]
    pq.write_table(pa.table({"area_m2": area, "town": names, "price": price}), path)


def make_foxes(path: Path) -> None:
    """A text of 2,000 lines."""
    rng = random.Random(0)
    verbs = ("jumps over", "looks at", "runs from", "waits for")
    path.write_text("".join(f"The quick brown fox {rng.choice(verbs)} the lazy dog.\n" for _ in range(2000)))


FILES = {
    "flights": (make_flights, "flights.csv"),
    "shapes": (make_shapes, "shapes"),
    "waves": (make_waves, "waves.npz"),
    "houses": (make_houses, "houses.parquet"),
    "foxes": (make_foxes, "foxes.txt"),
}


def main(names: list[str]) -> None:
    for name in names or FILES:
        make, file = FILES[name]
        make(HERE / file)
        print(f"examples/data/{file}")


if __name__ == "__main__":
    main(sys.argv[1:])
