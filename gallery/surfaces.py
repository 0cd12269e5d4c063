"""Claims about the loss landscape between minima and around them, and about pictures of it."""

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from core.plot.chart import Chart, Curve, Panel
from gallery.claim import (
    Claim,
    Found,
    Look,
    PicturesOf,
    Request,
    Runs,
    Seen,
    Trained,
    by_chance,
    pairs,
    share,
    span,
)
from gallery.flatness import matched

NORMS = {"none": 0.1, "filter": 1.0}
"""Normalisation of the directions -> the range of the profile along them."""
BATCHES = {"small": "batch 16", "large": "batch 256"}
MINIMA = {"small": "batch 16", "full": "full batch"}


def couples(runs: Runs) -> list[tuple[Trained, Trained]]:
    """Seeds 0 and 1, 2 and 3, and so on: no run is in two of them."""
    jobs = runs["small"]
    return list(zip(jobs[::2], jobs[1::2], strict=True))


def ends(pair: Sequence[Trained]) -> list[dict[str, str]]:
    return [{"job": run.job} for run in pair]


def lines(runs: Runs) -> Iterator[tuple[Trained, Request]]:
    for pair in couples(runs):
        yield pair[0], {"kind": "interpolation", "checkpoints": ends(pair), "range": [0, 1]}


def curves(runs: Runs) -> Iterator[tuple[Trained, Request]]:
    for pair in couples(runs):
        yield pair[0], {"kind": "connect", "checkpoints": ends(pair)}


def connected(runs: Runs) -> Seen:
    """The barrier of the train loss on the straight line, and on a curve that was trained to have none."""
    first = [one for one, _ in couples(runs)]
    rows, held = [], []
    for split in ("train", "test"):
        straight = [float(run.found["line"].numbers["pairs"][0]["barrier"][split]["height"]) for run in first]
        curved = [float(run.found["curve"].numbers["curve"][split]["barrier"]) for run in first]
        rows.append((f"{split} loss", span(straight, ".2f"), span(curved, ".3f")))
        held += [a > 0.1 and b < a / 20 for a, b in zip(straight, curved, strict=True)] if split == "train" else []
    lengths = [run.found["curve"].numbers["length"] for run in first]
    longer = fmean([each["curve"] / each["line"] for each in lengths])
    words = (
        f"barriers of the train loss {rows[0][1]} on the line, {rows[0][2]} on the curve, of the test loss "
        f"{rows[1][1]} and {rows[1][2]}, over {len(first)} pairs; the curve is {longer:.2f} times as long (mean)"
    )
    return Seen(words, all(held), (("barrier of the", "straight line", "curve"), *rows))


def profiles(norm: str) -> Look:
    """Loss along one random direction, of which other norms differ in its length alone, filter by filter."""

    def ask(runs: Runs) -> Iterator[tuple[Trained, Request]]:
        for run in (run for jobs in runs.values() for run in jobs):
            reach = NORMS[norm]
            yield run, {
                "kind": "landscape", "job": run.job, "dimensions": 1, "norm": norm, "range": [-reach, reach],
                "steps": 41, "seed": run.seed,
            }  # fmt: skip

    return Look(norm, ask)


def rise(found: Found) -> float:
    """The loss increase from the middle to the ends, which are equally far: the mean of both."""
    losses = found.arrays["train.loss"]
    return float((losses[0] + losses[-1]) / 2 - losses[len(losses) // 2])


def normalised(runs: Runs) -> Seen:
    """Along a raw direction the network with weight decay is sharper; along a filter-normalised one it is flatter."""
    rows, held, told = [], [], []
    for batch, label in BATCHES.items():
        both = list(pairs(runs, batch, f"{batch}-decay"))
        rises = {norm: [[rise(run.found[norm]) for run in pair] for pair in both] for norm in NORMS}
        sharper = [decayed > plain for plain, decayed in rises["none"]]
        flatter = [decayed < plain for plain, decayed in rises["filter"]]
        better = [decayed.test_loss() < plain.test_loss() for plain, decayed in both]
        held += [*sharper, *flatter]
        told.append(
            f"{label}: with decay sharper in {share(sharper)} by the raw direction, flatter in {share(flatter)} by the "
            f"normalised one, lower test loss in {share(better)}"
        )
        for place, name in enumerate(("no decay", "decay 1e-3")):
            of_norms = [median(pair[place] for pair in rises[norm]) for norm in NORMS]
            own = median(pair[place].found["filter"].numbers["centre"]["train"]["loss"] for pair in both)
            tested = median(pair[place].test_loss() for pair in both)
            rows.append((f"{label}, {name}", f"{own:.4f}", *(f"{each:.2g}" for each in of_norms), f"{tested:.3f}"))
    head = ("medians", "train loss", "rise at 0.1 raw direction", "rise at 1 filter-normalised direction", "test loss")
    return Seen(f"{'; '.join(told)}. {between_batches(runs)}", all(held), (head, *rows))


def between_batches(runs: Runs) -> str:
    """Both batches without decay, in words."""
    both = list(pairs(runs, *BATCHES))
    raw, scaled = ([rise(a.found[norm]) < rise(b.found[norm]) for a, b in both] for norm in NORMS)
    better = [a.test_loss() < b.test_loss() for a, b in both]
    return (
        f"Without decay batch 16 is flatter than batch 256 in {share(raw)} by the raw direction, in {share(scaled)} by "
        f"the normalised one, and its test loss is lower in {share(better)}"
    )


def normalised_picture(runs: Runs) -> Chart:
    """One panel for each norm; x is a share of how far that profile goes."""
    panels = []
    for norm, title in (("none", "train loss, raw direction"), ("filter", "train loss, filter-normalised")):
        drawn = []
        for place, (variant, label) in enumerate({"large": "no weight decay", "large-decay": "decay 1e-3"}.items()):
            arrays = runs[variant][0].found[norm].arrays
            shares = [float(x) / NORMS[norm] for x in arrays["x"]]
            drawn.append(Curve(label, shares, [float(loss) for loss in arrays["train.loss"]], place))
        panels.append(Panel(title, drawn, "linear"))
    return Chart("loss along a direction, without and with weight decay", panels, "share of the range", one_legend=True)


def planes(runs: Runs) -> Iterator[tuple[Trained, Request]]:
    """Train and test surface of the same plane, around the weights of equal train loss."""
    for run in (run for variant in MINIMA for run in runs[variant]):
        place = matched(run)["checkpoint"]
        yield run, {"kind": "landscape", "checkpoint": place, "splits": ["train", "test"], "seed": run.seed}


def gap(run: Trained) -> float:
    """Test loss less train loss, at the trained weights."""
    centre = run.found["plane"].numbers["centre"]
    return float(centre["test"]["loss"] - centre["train"]["loss"])


def cost(run: Trained) -> float:
    """The test loss at the trained weights minus the lowest test loss of the plane."""
    numbers = run.found["plane"].numbers
    return float(numbers["centre"]["test"]["loss"] - numbers["surface"]["test"]["lowest"])


def moved(run: Trained) -> float:
    """Distance from the lowest point of the train surface to that of the test surface, in lengths of the directions."""
    at = [run.found["plane"].numbers["surface"][split]["at"] for split in ("train", "test")]
    return float(sum((a - b) ** 2 for a, b in zip(*at, strict=True)) ** 0.5)


def surfaces_shift(runs: Runs) -> Seen:
    """Whether the sharper minimum pays more for the displacement, and how much of the gap that is."""
    less = [cost(flat) < cost(sharp) for flat, sharp in pairs(runs, *MINIMA)]
    chance = by_chance(sum(less), len(less))
    rows = [
        (
            label,
            f"{fmean([gap(run) for run in runs[variant]]):.3f}",
            f"{fmean([cost(run) for run in runs[variant]]):.4f}",
            span([moved(run) for run in runs[variant]], ".2f"),
        )
        for variant, label in MINIMA.items()
    ]
    words = (
        f"the displacement costs {rows[0][2]} with batch 16 and {rows[1][2]} with the full batch (means), less in "
        f"{share(less)} (by chance: {chance:.2f}); the test loss is {rows[0][1]} and {rows[1][1]} above the train loss"
    )
    head = ("", "test less train loss", "of it by displacement", "lowest points apart")
    return Seen(words, chance < 0.05, (head, *rows))


CLAIMS = (
    Claim(
        "connected-minima",
        "Minima of different seeds are connected by a curve",
        "Between the ends of two runs that differ in their seeds the straight line goes over a barrier. A bent line, "
        "whose middle was trained to lie low, leads from one to the other without one. Most of the straight "
        "line's barrier is thought to come from hidden units that stand in another order (Entezari et al. 2022), so it "
        "does not say that the two are different kinds of minima.",
        "the last weights of the jobs with batch 16 of the entry on small batches, seeds 0 and 1, 2 and 3 and so on; a "
        "quadratic Bezier curve, trained for 100 epochs on the train part, looked at in 61 points",
        "a barrier of the train loss above 0.1 on the line, and on the curve below a twentieth of it, for every pair",
        seeds=range(10),
        robust=True,
        judge=connected,
        picture=PicturesOf("curve", "curve", ("small",)),
        drawn="Drawn by the service: seeds 0 and 1.",
        also_tried=(
            "first the jobs of the entry on many minima (one layer of 64, 1,258 digits, 5 pairs): 0.11 to 0.18 on the "
            "line, 0.009 to 0.011 on the curve, more than the twentieth that is asked for"
        ),
        jobs_of="batch-and-flatness",
        looks=(Look("line", lines), Look("curve", curves)),
    ),
    Claim(
        "filter-normalisation",
        "Pictures of the landscape need filter normalization",
        "Weight decay makes weights smaller, and a step of a given length is larger for small weights. A profile along "
        "a raw random direction therefore calls the network sharper that was trained with decay; measured in units of "
        "each filter it is flatter, and its test loss is lower. The train losses are not equal. The exact case is a "
        "network and the same one with a layer multiplied by ten and the next one divided by it: no job makes that "
        "twin, but a test does (`tests/train/test_landscape.py`), and finds the filter-normalised surfaces equal to "
        "1e-12 and the raw ones more than 0.1 apart.",
        "perceptron, 64 hidden units, on 899 digits; SGD at rate 0.1, momentum 0.9, batch 16 or 256, 100 epochs, "
        "without weight decay and with 1e-3; one random direction for each seed, the same for all four",
        "with decay the train loss rises more along the raw direction, and less along the filter-normalised one, with "
        "either batch, in every run",
        seeds=range(5),
        robust=True,
        judge=normalised,
        picture=normalised_picture,
        drawn="Drawn: seed 0, batch 256. The raw profile goes to 0.1, the normalised one to 1 length of the direction.",
        also_tried=(
            "seeds 0 to 2 with weight decay 2e-3 and 5e-3, and 1e-2 without momentum: both directions say the same in "
            "3/3 with either batch. At 5e-3 batch 16 no longer fits the train set (loss above 0.1), and its test loss "
            "is lower than without decay in 1/3"
        ),
        looks=(profiles("none"), profiles("filter")),
    ),
    Claim(
        "surfaces-shift",
        "Train and test surface over each other",
        "The essay draws the test surface as the train surface moved sideways, which costs much in a sharp minimum and "
        "little in a flat one. Here both are drawn over each other, in a random plane around the weights of a small "
        "and of a full batch. What the plane shows is a test surface that is lifted much more than it is moved: at its "
        "lowest point it is hardly lower than at the trained weights. A random plane sees two of 26,122 directions.",
        "the jobs of the entry on small batches, at the same train loss; 21 by 21 points in a filter-normalised plane, "
        "400 train and 1,038 test examples",
        "the displacement costs less test loss with batch 16, the flatter one, more often than chance explains "
        "(one-sided sign test, ties against the claim, p < 0.05)",
        seeds=range(10),
        robust=False,
        judge=surfaces_shift,
        picture=PicturesOf("plane", "shift", tuple(MINIMA)),
        drawn="Drawn by the service: seed 0, batch 16 above, the full batch below.",
        also_tried=(
            "the plane of the two largest curvatures, 31 by 31 points, seeds 0 to 2: the lowest test loss is at the "
            "trained weights or beside them there too"
        ),
        jobs_of="batch-and-flatness",
        looks=(Look("plane", planes),),
    ),
)
