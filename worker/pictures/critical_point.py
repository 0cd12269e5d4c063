"""The loss along the eigenvector of the smallest eigenvalue, and the spectrum behind the verdict."""

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.captions import format_counts
from worker.pictures.figure import (
    as_floats,
    draw_empty,
    draw_legend,
    finite_values,
    format_number,
    new_figure,
    shorten_middle,
)
from worker.pictures.spectrum import draw_ritz_values

Numbers = Mapping[str, Any]


def draw_figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`escape` and, if eigenvalues were computed, `spectrum`."""
    yield "escape", draw_escape(numbers)
    if len(finite_values(arrays["raw"].tolist())):
        yield "spectrum", draw_spectrum(numbers, arrays)


def caption_text(numbers: Numbers) -> str:
    """The weights, and the numbers behind the verdict."""
    slope, ends = numbers["gradient"], numbers["curvature"]
    unsure = " Not sure: an eigenvalue is nearer than its error to what decides." if numbers["sure"] is False else ""
    partial = " PARTIAL: it was cancelled." if numbers.get("partial") else ""
    return (
        f"Weights of {shorten_middle(numbers['label'])} ({numbers['weights']:,} of them), train loss "
        f"{format_number(numbers['loss'])} on {format_counts({numbers['split']: numbers['examples']})}, "
        f"seed {numbers['seed']}. "
        f"Length of the gradient {format_number(slope['norm'])}; along the direction that decides, of curvature "
        f"{format_number(slope['curvature'])}, it is {format_number(slope['along'])} (stationary up to "
        f"{format_number(slope['tolerance'])}). "
        f"Largest curvature {format_number(ends['largest']['value'])} ± {format_number(ends['largest']['residual'])}, "
        "smallest "
        f"{format_number(ends['smallest']['value'])} ± {format_number(ends['smallest']['residual'])} (negative below "
        f"-{format_number(ends['tau'])}).{unsure}{partial} {' '.join(numbers['caveats'])}"
    )


def draw_escape(numbers: Numbers) -> Figure:
    """The loss in both directions, and the parabola of the smallest eigenvalue."""
    profile = numbers["profile"]
    losses, parabola = as_floats(profile["loss"]), as_floats(profile["parabola"])
    made = new_figure(f"{numbers['sentence'] or 'No verdict yet.'} {caption_text(numbers)}")
    ax = made.subplots()
    ax.plot(profile["at"], parabola, "--", color="0.5", label="what the smallest eigenvalue alone would give")
    ax.plot(profile["at"], losses, "o-", markersize=3, color="tab:blue", label="train loss")
    ax.axvline(0, color="0.4", linestyle=":", linewidth=0.9)
    if len(found := finite_values(losses.tolist())):
        spare = 0.1 * float(found.max() - found.min()) or 0.01 * abs(float(found[0])) or 0.01
        ax.set_ylim(float(found.min()) - spare, float(found.max()) + spare)
        draw_legend(ax)
    else:
        draw_empty(ax)
    verdict = (numbers["verdict"] or "not decided yet").replace("_", " ")
    made.suptitle(f"{verdict}{'' if numbers['sure'] in {True, None} else ' (not sure)'}")
    ax.set_xlabel("distance along the eigenvector of the smallest eigenvalue")
    ax.set_ylabel("train loss")
    return made


def draw_spectrum(numbers: Numbers, arrays: Arrays) -> Figure:
    """The eigenvalues that Lanczos found, with the range that counts as 0."""
    tau = numbers["curvature"]["tau"]
    made = new_figure(
        f"Ritz values: estimates of the eigenvalues from a limited number of products with the Hessian. The ends are "
        f"accurate, the middle is not. In the grey band an eigenvalue counts as 0. {caption_text(numbers)}",
        height=2.2,
    )
    ax = made.subplots()
    draw_ritz_values(ax, [("", arrays["raw"].tolist())])
    if tau:
        ax.axvspan(-tau, tau, color="0.85", zorder=0)
    return made
