"""The loss along the direction of escape, and the spectrum that the verdict was made from."""

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.captions import counted
from worker.pictures.figure import empty, figure, finite, known, legend, number, short
from worker.pictures.spectrum import ritz

Numbers = Mapping[str, Any]


def figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`escape` and, once there is one, `spectrum`."""
    yield "escape", escape(numbers)
    if len(finite(arrays["raw"].tolist())):
        yield "spectrum", spectrum(numbers, arrays)


def about(numbers: Numbers) -> str:
    """Whose weights, and the numbers behind the verdict."""
    slope, ends = numbers["gradient"], numbers["curvature"]
    unsure = " Not sure: an eigenvalue is nearer than its error to what decides." if numbers["sure"] is False else ""
    partial = " PARTIAL: it was cancelled." if numbers.get("partial") else ""
    return (
        f"Weights of {short(numbers['label'])} ({numbers['weights']:,} of them), train loss "
        f"{number(numbers['loss'])} on {counted({numbers['split']: numbers['examples']})}, seed {numbers['seed']}. "
        f"Length of the gradient {number(slope['norm'])}; along the direction that decides, of curvature "
        f"{number(slope['curvature'])}, it is {number(slope['along'])} (stationary up to "
        f"{number(slope['tolerance'])}). "
        f"Largest curvature {number(ends['largest']['value'])} ± {number(ends['largest']['residual'])}, smallest "
        f"{number(ends['smallest']['value'])} ± {number(ends['smallest']['residual'])} (negative below "
        f"-{number(ends['tau'])}).{unsure}{partial} {' '.join(numbers['caveats'])}"
    )


def escape(numbers: Numbers) -> Figure:
    """Where the loss goes to both sides, and the parabola of the smallest eigenvalue."""
    profile = numbers["profile"]
    losses, parabola = known(profile["loss"]), known(profile["parabola"])
    made = figure(f"{numbers['sentence'] or 'No verdict yet.'} {about(numbers)}")
    ax = made.subplots()
    ax.plot(profile["at"], parabola, "--", color="0.5", label="what the smallest eigenvalue alone would give")
    ax.plot(profile["at"], losses, "o-", markersize=3, color="tab:blue", label="train loss")
    ax.axvline(0, color="0.4", linestyle=":", linewidth=0.9)
    if len(found := finite(losses.tolist())):
        spare = 0.1 * float(found.max() - found.min()) or 0.01 * abs(float(found[0])) or 0.01
        ax.set_ylim(float(found.min()) - spare, float(found.max()) + spare)
        legend(ax)
    else:
        empty(ax)
    verdict = (numbers["verdict"] or "not decided yet").replace("_", " ")
    made.suptitle(f"{verdict}{'' if numbers['sure'] in {True, None} else ' (not sure)'}")
    ax.set_xlabel("distance along the eigenvector of the smallest eigenvalue")
    ax.set_ylabel("train loss")
    return made


def spectrum(numbers: Numbers, arrays: Arrays) -> Figure:
    """The eigenvalues that Lanczos found, with what counts as 0."""
    tau = numbers["curvature"]["tau"]
    made = figure(
        f"Ritz values: what the eigenvalues look like after so many products with the Hessian. The ends are accurate, "
        f"the middle is not. In the grey band one counts as 0. {about(numbers)}",
        height=2.2,
    )
    ax = made.subplots()
    ritz(ax, [("", arrays["raw"].tolist())])
    if tau:
        ax.axvspan(-tau, tau, color="0.85", zorder=0)
    return made
