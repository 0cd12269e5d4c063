"""Sentences of captions: the weights, the examples, the directions, and what is missing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.pictures.figure import format_number, join_words, shorten_middle

Numbers = Mapping[str, Any]

NORMS = {
    "filter": "each filter as long as that of the weights",
    "layer": "each layer as long as that of the weights",
    "none": "not normalised",
}
EVERY = 8  # the most weights that a caption names; the numbers name all


def describe_examples(numbers: Numbers) -> str:
    """The examples of each split, and the treatment of batch norm."""
    parts = format_counts({split: numbers["examples"][split] for split in numbers["splits"]})
    norms = {"fixed": "keeps its statistics", "reestimate": "estimated again at every point"}
    batch_norm = f"; batch norm {norms[numbers['bn']]}" if numbers.get("bn") else ""
    return f"{parts}, evaluation mode{batch_norm}."


def format_counts(examples: Mapping[str, int]) -> str:
    """1,258 train and 359 test examples."""
    noun = "example" if list(examples.values()) == [1] else "examples"
    return f"{join_words([f'{count:,} {split}' for split, count in examples.items()])} {noun}"


def describe_weights(labels: Sequence[str]) -> str:
    """The first EVERY weights by name, and the number of the others."""
    named, rest = [shorten_middle(each) for each in labels[:EVERY]], len(labels) - EVERY
    return join_words([*named, f"{rest} more"] if rest > 0 else named)


def describe_losses(found: Mapping[str, Mapping[str, float | None]]) -> str:
    """Train loss 0.12, accuracy 0.98; test loss …"""
    return "; ".join(
        f"{split} {', '.join(f'{name} {format_number(value)}' for name, value in row.items())}"
        for split, row in found.items()
    )


def describe_directions(numbers: Numbers) -> str:
    """How the directions of the axes were chosen."""
    kind = numbers["directions"]
    many = "One direction" if numbers["cosine"] is None else "Two directions"
    angle = "" if numbers["cosine"] is None else f", cosine between them {round(numbers['cosine'], 3) + 0.0:.3f}"
    if kind == "random":
        left = ", biases and batch norm left where they are" if numbers.get("ignore", "biasbn") == "biasbn" else ""
        return f"{many} at random (seed {numbers['seed']}), {NORMS[numbers['norm']]}{left}{angle}."
    if kind == "eigen":
        return f"{many}: leading eigenvectors of the Hessian of the train loss, of length 1{angle}."
    if kind == "between":
        return f"{many} from the first weights to the others, 1 where these are{angle}."
    return f"{many} in which the weights move most, of length 1{angle}."


def axis_label(numbers: Numbers, axis: int) -> str:
    """The label of an axis, with its unit."""
    kind, order = numbers["directions"], axis + 1
    length = f" (length {format_number(numbers['axes'][axis]['norm'])})" if numbers["axes"] else ""
    if kind == "random":
        return f"random direction {order}{length}"
    if kind == "eigen":
        return f"eigenvector {order} (eigenvalue {format_number(numbers['eigenvalues'][axis])})"
    if kind == "between":
        return f"towards weights {order + 1}{length}"
    shares = numbers.get("explained")
    return f"principal direction {order}" + (f" (shows {100 * shares[axis]:.1f} %)" if shares else "")


def describe_missing(numbers: Numbers, infinite: int) -> Iterator[str]:
    """What is missing in a picture: points that were not computed, and values that are not finite."""
    points, computed = numbers["points"], numbers["computed"]
    if computed < points:
        part = numbers.get("part")
        what = f"PART {part['number']} OF {part['of']}" if part else "PARTIAL"
        yield f"{what}: {computed:,} of {points:,} points were computed; hatched areas and gaps are unknown."
    if infinite:
        yield f"{infinite:,} values are not finite; they are hatched or left out."
