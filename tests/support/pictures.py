"""Reading a picture as people do: where the labelled ticks are decides where everything else is."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"
SIZES = {"k": 1e3, "M": 1e6, "G": 1e9}
Point = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """An SVG of ours, parsed."""

    root: ET.Element

    @classmethod
    def of(cls, text: str) -> "Picture":
        return cls(ET.fromstring(text))  # noqa: S314 - our own text

    def texts(self) -> list[str]:
        """Everything that is written on it."""
        return [one.text or "" for one in self.root.iter(f"{SVG}text")]

    def all(self, name: str, word: str) -> list[ET.Element]:
        """Elements with this class, whatever other classes they have; those of the legend too."""
        return [one for one in self.root.iter(f"{SVG}{name}") if word in one.get("class", "").split()]

    def group(self, title: str) -> ET.Element:
        """What is drawn for a curve: the last group with its title; the legend's comes before."""
        return [one for one in self.root.iter(f"{SVG}g") if one.findtext(f"{SVG}title") == title][-1]

    def lines(self, title: str) -> list[list[Point]]:
        """The pixels of a curve, one list for each stretch."""
        paths = [one for one in self.group(title).iter(f"{SVG}path") if one.get("class", "").startswith("curve")]
        return [points(part) for path in paths for part in path.get("d", "").split("M")[1:]]

    def dots(self, title: str, word: str = "dot") -> list[Point]:
        found = [one for one in self.group(title).iter(f"{SVG}circle") if one.get("class") == word]
        return [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in found]

    def ticks(self, axis: str) -> list[tuple[float, float]]:
        """(value, pixel) of the labelled ticks, read from the labels; a label stands 4 pixels below its line."""
        anchor, place, off = ("end", "y", 4.0) if axis == "y" else ("middle", "x", 0.0)
        found = [one for one in self.root.iter(f"{SVG}text") if one.get("text-anchor") == anchor]
        numbers = [(value(one.text or ""), float(one.get(place, "")) - off) for one in found]
        return [(number, pixel) for number, pixel in numbers if not math.isnan(number)]

    def reader(self, *, log: bool = False) -> Callable[[Point], Point]:
        """Pixels -> data, from the first and the last labelled tick of each axis."""
        (x0, left), (x1, right) = self.ticks("x")[0], self.ticks("x")[-1]
        (y0, low), (y1, high) = self.ticks("y")[0], self.ticks("y")[-1]

        def read(pixel: Point) -> Point:
            x = x0 + (pixel[0] - left) / (right - left) * (x1 - x0)
            share = (pixel[1] - low) / (high - low)
            return x, y0 * (y1 / y0) ** share if log else y0 + share * (y1 - y0)

        return read


def points(path: str) -> list[Point]:
    numbers = [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?", path)]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def value(label: str) -> float:
    try:
        return float(label[:-1]) * SIZES[label[-1]] if label[-1:] in SIZES else float(label)
    except ValueError:
        return math.nan
