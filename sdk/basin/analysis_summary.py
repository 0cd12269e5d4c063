"""The main results of an analysis as lines of text. The full results are in its JSON and its arrays."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from basin.shapes import Analysis
from basin.terminal_output import format_number

Line = tuple[str, str]
Lines = Iterator[Line]
MOST_LINES: Final = 40


def analysis_headline(found: Analysis) -> list[Line]:
    """Labels and values. For an unknown kind, or results of another structure, all scalar values."""
    results = found.results or {}
    make_lines: Callable[[Mapping[str, Any]], Lines] = KINDS.get(found.kind, number_lines)
    try:
        lines = list(islice(make_lines(results), MOST_LINES))
    except (AttributeError, IndexError, KeyError, TypeError):  # a newer service may send another structure
        lines = list(islice(number_lines(results), MOST_LINES))
    return [
        *lines,
        *(("read with care", str(one)) for one in (*results.get("caveats", ()), *results.get("warnings", ()))),
    ]


def landscape_lines(results: Mapping[str, Any]) -> Lines:
    """The loss at the weights, and the lowest and the highest loss on the grid."""
    if part := results.get("part"):
        yield "part", f"{part['number']} of {part['of']}: {results['computed']} of {results['points']} points"
    for split, surface in results["surface"].items():
        at = ", ".join(format_number(place) for place in surface["at"] or ())
        yield f"{split} loss here", format_number(results["centre"][split]["loss"])
        yield f"{split} loss, lowest", f"{format_number(surface['lowest'])} at ({at})"
        yield f"{split} loss, highest", format_number(surface["highest"])
    yield "directions", f"{results['directions']}, norm {results['norm']}, seed {results['seed']}"
    if results["cosine"] is not None:
        yield "cosine of the two", format_number(results["cosine"])


def trajectory_lines(results: Mapping[str, Any]) -> Lines:
    """Each axis' share of the squared distances from the end, and each checkpoint's coordinates."""
    for place, share in enumerate(results["explained"] or (), 1):
        yield f"shown by axis {place}", f"{share:.1%} of the squared distances from the end"
    for one in (*results["path"], *results["averages"]):
        at = ", ".join(format_number(place) for place in one["at"])
        yield f"{one['kind']}, step {one['step']}", f"at ({at}), {format_number(one['off'])} off the plane"


def interpolation_lines(results: Mapping[str, Any]) -> Lines:
    """The loss barrier of each pair, and the places that the service added to the requested ones."""
    if added := results.get("added"):
        yield (
            "places",
            f"{results['places']}: the {results['steps']} requested, and {' and '.join(map(format_number, added))}",
        )
    for pair in results["pairs"]:
        yield "from", pair["from"]
        yield "to", pair["to"]
        for split, barrier in pair["barrier"].items():
            where = f" at {format_number(barrier['alpha'])}" if barrier else ""
            yield f"{split} barrier", f"{format_number(barrier['height'])}{where}" if barrier else "not known yet"


def connect_lines(results: Mapping[str, Any]) -> Lines:
    """Barrier, highest loss and length of the curve, compared with the straight line."""
    for split in results["curve"]:
        curve, line = results["curve"][split], results["line"][split]
        yield (
            f"{split} barrier",
            f"{format_number(curve['barrier'])} on the curve, {format_number(line['barrier'])} on the line",
        )
        most = format_number(curve["loss"]["most"]), format_number(line["loss"]["most"])
        yield f"{split} loss, highest", f"{most[0]} on the curve, {most[1]} on the line"
    curve, line = (format_number(results["length"][which]) for which in ("curve", "line"))
    yield "length", f"{curve} of the curve, {line} of the line"


def average_lines(results: Mapping[str, Any]) -> Lines:
    """The losses of the members, of their averaged weights, and of their averaged predictions."""
    rows = [(one["label"], one) for one in results["members"]]
    rows += [("weights averaged", results["average"]), ("predictions averaged", results["ensemble"])]
    for label, row in rows:
        losses = [f"{split} {format_number(row[split]['loss'])}" for split in results["average"]]
        yield label, f"loss: {', '.join(losses)}"


def sharpness_lines(results: Mapping[str, Any]) -> Lines:
    """The train loss of each subject, and every sharpness measure of it."""
    for one in results["subjects"]:
        yield one["label"], f"train loss {format_number(one['train_loss'])}, {one['examples']} examples"
    for name, measure in results["measures"].items():
        for row in measure["rows"]:
            error = "" if row["error"] is None else f" ± {format_number(row['error'])}"
            yield name, f"{format_number(row['value'])}{error}  ({row['label']})"
        yield "", measure["caveat"]


def critical_point_lines(results: Mapping[str, Any]) -> Lines:
    """The verdict, and the gradient and curvature that it is based on."""
    yield "verdict", results["verdict"]
    yield "", results["sentence"]
    gradient, curvature = results["gradient"], results["curvature"]
    decides = f", {format_number(gradient['along'])} along the deciding eigenvector" if "along" in gradient else ""
    yield "gradient", f"{format_number(gradient['norm'])}{decides}, tolerance {format_number(gradient['tolerance'])}"
    yield (
        "curvature",
        f"{format_number(curvature['smallest']['value'])} to {format_number(curvature['largest']['value'])}",
    )


def lr_range_lines(results: Mapping[str, Any]) -> Lines:
    """The candidate learning rates: the lowest over all seeds, and the value of each seed."""
    for name, one in results["candidates"].items():
        values = ", ".join(format_number(value) for value in one["values"])
        yield name, f"{format_number(one['lowest'])} is the lowest of {values}"
    yield from (("", sentence) for sentence in results["advice"])


def gradient_noise_lines(results: Mapping[str, Any]) -> Lines:
    """The gradient noise scale (B_simple) at each checkpoint."""
    for one in results["places"]:
        error = "" if one["error"] is None else f" ± {format_number(one['error'])}"
        yield f"{one['kind']}, step {one['step']}", f"B_simple {format_number(one['scale'])}{error}"
    yield from (("", sentence) for sentence in results["advice"])


KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Lines]]] = {
    "landscape": landscape_lines,
    "assembly": landscape_lines,
    "trajectory": trajectory_lines,
    "interpolation": interpolation_lines,
    "connect": connect_lines,
    "average": average_lines,
    "sharpness": sharpness_lines,
    "critical_point": critical_point_lines,
    "lr_range": lr_range_lines,
    "gradient_noise": gradient_noise_lines,
}


def number_lines(found: Any, name: str = "") -> Lines:
    """All scalar values by their dotted names. Lists of more than 8 are left out."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            yield from number_lines(value, f"{name}.{key}" if name else str(key))
    elif isinstance(found, list):
        if found and len(found) <= 8:
            if all(isinstance(one, int | float | str) for one in found):
                yield name, ", ".join(format_number(one) for one in found)
            else:
                for place, one in enumerate(found, 1):
                    yield from number_lines(one, f"{name}[{place}]")
    elif found is not None:
        yield name, format_number(found)
