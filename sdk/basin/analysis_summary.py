"""What one wants to know first of an analysis, line by line; everything else is in its JSON and its arrays."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from basin.shapes import Analysis
from basin.terminal_output import number

Line = tuple[str, str]
Lines = Iterator[Line]
MOST_LINES: Final = 40


def headline(found: Analysis) -> list[Line]:
    """Labels and values. Of a kind that is not known here, or came in another shape, all single values."""
    results = found.results or {}
    tell: Callable[[Mapping[str, Any]], Lines] = KINDS.get(found.kind, numbers)
    try:
        lines = list(islice(tell(results), MOST_LINES))
    except (AttributeError, IndexError, KeyError, TypeError):  # a newer service says it in other words
        lines = list(islice(numbers(results), MOST_LINES))
    return [
        *lines,
        *(("read with care", str(one)) for one in (*results.get("caveats", ()), *results.get("warnings", ()))),
    ]


def landscape(results: Mapping[str, Any]) -> Lines:
    """Where the weights stand, and the least and the most on the grid."""
    if part := results.get("part"):
        yield "part", f"{part['number']} of {part['of']}: {results['computed']} of {results['points']} points"
    for split, surface in results["surface"].items():
        at = ", ".join(number(place) for place in surface["at"] or ())
        yield f"{split} loss here", number(results["centre"][split]["loss"])
        yield f"{split} loss, lowest", f"{number(surface['lowest'])} at ({at})"
        yield f"{split} loss, highest", number(surface["highest"])
    yield "directions", f"{results['directions']}, norm {results['norm']}, seed {results['seed']}"
    if results["cosine"] is not None:
        yield "cosine of the two", number(results["cosine"])


def trajectory(results: Mapping[str, Any]) -> Lines:
    """How much of the way the plane shows."""
    for place, share in enumerate(results["explained"] or (), 1):
        yield f"shown by axis {place}", f"{share:.1%} of the squared distances from the end"
    for one in (*results["path"], *results["averages"]):
        at = ", ".join(number(place) for place in one["at"])
        yield f"{one['kind']}, step {one['step']}", f"at ({at}), {number(one['off'])} off the plane"


def interpolation(results: Mapping[str, Any]) -> Lines:
    """The barrier of each pair, and which places there are that nobody asked for."""
    if added := results.get("added"):
        yield "places", f"{results['places']}: the {results['steps']} asked for, and {' and '.join(map(number, added))}"
    for pair in results["pairs"]:
        yield "from", pair["from"]
        yield "to", pair["to"]
        for split, barrier in pair["barrier"].items():
            where = f" at {number(barrier['alpha'])}" if barrier else ""
            yield f"{split} barrier", f"{number(barrier['height'])}{where}" if barrier else "not known yet"


def connect(results: Mapping[str, Any]) -> Lines:
    """The curve beside the line."""
    for split in results["curve"]:
        curve, line = results["curve"][split], results["line"][split]
        yield f"{split} barrier", f"{number(curve['barrier'])} on the curve, {number(line['barrier'])} on the line"
        most = number(curve["loss"]["most"]), number(line["loss"]["most"])
        yield f"{split} loss, highest", f"{most[0]} on the curve, {most[1]} on the line"
    yield (
        "length",
        f"{number(results['length']['curve'])} of the curve, {number(results['length']['line'])} of the line",
    )


def average(results: Mapping[str, Any]) -> Lines:
    """Members, the average of weights, and that of predictions."""
    rows = [(one["label"], one) for one in results["members"]]
    rows += [("weights averaged", results["average"]), ("predictions averaged", results["ensemble"])]
    for label, row in rows:
        told = [f"{split} {number(row[split]['loss'])}" for split in results["average"]]
        yield label, f"loss: {', '.join(told)}"


def sharpness(results: Mapping[str, Any]) -> Lines:
    """Every measure of every subject, and the loss at which it was taken."""
    for one in results["subjects"]:
        yield one["label"], f"train loss {number(one['train_loss'])}, {one['examples']} examples"
    for name, measure in results["measures"].items():
        for row in measure["rows"]:
            error = "" if row["error"] is None else f" ± {number(row['error'])}"
            yield name, f"{number(row['value'])}{error}  ({row['label']})"
        yield "", measure["caveat"]


def critical_point(results: Mapping[str, Any]) -> Lines:
    """The verdict and what it rests on."""
    yield "verdict", results["verdict"]
    yield "", results["sentence"]
    gradient, curvature = results["gradient"], results["curvature"]
    decides = f", {number(gradient['along'])} along what decides" if "along" in gradient else ""
    yield "gradient", f"{number(gradient['norm'])}{decides}, tolerance {number(gradient['tolerance'])}"
    yield "curvature", f"{number(curvature['smallest']['value'])} to {number(curvature['largest']['value'])}"


def lr_range(results: Mapping[str, Any]) -> Lines:
    """Each reading of the curves, of all seeds."""
    for name, one in results["candidates"].items():
        values = ", ".join(number(value) for value in one["values"])
        yield name, f"{number(one['lowest'])} is the lowest of {values}"
    yield from (("", sentence) for sentence in results["advice"])


def gradient_noise(results: Mapping[str, Any]) -> Lines:
    """The noise scale along the run."""
    for one in results["places"]:
        error = "" if one["error"] is None else f" ± {number(one['error'])}"
        yield f"{one['kind']}, step {one['step']}", f"B_simple {number(one['scale'])}{error}"
    yield from (("", sentence) for sentence in results["advice"])


KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Lines]]] = {
    "assembly": landscape,
    **{
        one.__name__: one
        for one in (
            *(landscape, trajectory, interpolation, connect, average),
            *(sharpness, critical_point, lr_range, gradient_noise),
        )
    },
}


def numbers(found: Any, name: str = "") -> Lines:
    """Single values by their dotted names; long lists are for the arrays and pictures."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            yield from numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(found, list):
        if found and len(found) <= 8:
            if all(isinstance(one, int | float | str) for one in found):
                yield name, ", ".join(number(one) for one in found)
            else:
                for place, one in enumerate(found, 1):
                    yield from numbers(one, f"{name}[{place}]")
    elif found is not None:
        yield name, number(found)
