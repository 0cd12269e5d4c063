"""Claims that are visible on a function of one or two numbers."""

import math
from statistics import median

from core.plot.chart import Chart, Curve, Dots, Panel
from core.recipe.data.formulas import sharp_flat
from gallery.claim import Claim, PathOf, Runs, Seen, Trained, first_at_most, pairs, share, span
from gallery.drawing import by_step, chart, dashed, panel

LEFT, RIGHT = -1.0679, 0.9143  # the minima of (x²-1)²/4 + 0.15 x; the left one is the lower
SHARP, FLAT = 1.4998, -2.0  # the minima of sharp_flat; their curvatures are 44.42 and 0.9
SHIFT = 0.2
STARTS = ("1.4", "1.45", "1.6")
"""Beside 1.55, in the valley of the sharp minimum."""


def last(run: Trained, series: str) -> float:
    """The last value of a series."""
    return run.values(series)[-1]


def exact_gradient(runs: Runs) -> Seen:
    """The full batch of noisy examples against the function without noise, point by point."""
    gaps = [
        max(abs(x - y) for x, y in zip(a.values("point.x"), b.values("point.x"), strict=True))
        for a, b in pairs(runs, "full", "noiseless")
    ]
    apart = [
        max(abs(x - y) for x, y in zip(a.values("point.x"), b.values("point.x"), strict=True))
        for a, b in pairs(runs, "one-example", "noiseless")
    ]
    strays = f"at most {max(gaps):.0e}" if max(gaps) else "exactly 0"
    words = (
        f"the full batch strays by {strays} from the path without noise; one example by "
        f"{span(apart, '.2f')} where it strays most, depending on the seed"
    )
    return Seen(words, max(gaps) < 1e-5 and min(apart) > 0.1)


def exact_gradient_picture(runs: Runs) -> Chart:
    one, bare, full = (
        by_step(runs[variant][0], "point.x", label, place)
        for place, (variant, label) in enumerate(
            {"one-example": "one example", "noiseless": "without noise", "full": "full batch"}.items()
        )
    )
    dots = [Dots(full.label, full.xs[::2], full.ys[::2], full.colour)]
    return chart([panel("x", [one, bare], "linear", dots=dots)], "optimizer step")


def reached_left(run: Trained) -> bool:
    return abs(last(run, "point.x") - LEFT) < 0.05


def escapes(runs: Runs) -> Seen:
    """Ends beside the lower minimum: left of the hill."""
    full = [abs(last(run, "point.x") - RIGHT) < 0.001 for run in runs["full"]]
    named = {
        "one-example": ("1", "0.2"),
        "one-example-lr-0.1": ("1", "0.1"),
        "batch-2": ("2", "0.2"),
        "batch-5": ("5", "0.2"),
        "full": ("full", "0.2"),
    }
    reached = {variant: [reached_left(run) for run in runs[variant]] for variant in named}
    rows = [(batch, rate, share(reached[variant])) for variant, (batch, rate) in named.items()]
    one = reached["one-example"]
    words = f"one example at a time reaches the lower minimum in {share(one)}; the full batch stays in {share(full)}"
    return Seen(words, sum(one) >= 0.95 * len(one) and all(full), (("batch", "first rate", "escaped"), *rows))


def leaves_saddle(runs: Runs) -> Seen:
    """|y| = 1 at both minima, 0 on the ridge; the first value of the series is the start."""
    stuck = [set(run.values("point.y")) == {0.0} for run in runs["full"]]
    free = [abs(abs(last(run, "point.y")) - 1) < 0.2 for run in runs["one-example"]]
    places = [first_at_most([-abs(y) for y in run.values("point.y")], -0.5) for run in runs["one-example"]]
    steps = [math.inf if place is None else place - 1 for place in places]
    words = f"the full batch stays on the ridge for all 400 steps in {share(stuck)}; one example ends beside a minimum "
    words += f"in {share(free)}, and gets to |y| ≥ 0.5 after {median(steps):g} steps (median)"
    return Seen(words, all(stuck) and all(free))


def sharp_and_flat(runs: Runs) -> Seen:
    """Gradient descent holds a minimum of curvature 44.42 exactly while lr < 2 / 44.42 = 0.0450."""
    paths = {variant: jobs[0].values("point.x") for variant, jobs in runs.items()}
    ends = {variant: path[-1] for variant, path in paths.items()}
    bounce = [abs(path[-1] - path[-2]) for path in (paths["lr-0.044"], paths["lr-0.046"])]
    low, high = sorted(paths["lr-0.046"][-2:])
    left = next((step for step, x in enumerate(paths["lr-0.2"]) if x < 0), None)
    words = (
        f"0.044 ends at {ends['lr-0.044']:.3f}; 0.046 ends jumping between {low:.3f} and {high:.3f}; 0.2 is left of 0 "
        f"from step {left} on and ends at {ends['lr-0.2']:.3f}"
    )
    rows = [(rate, f"{ends[f'lr-{rate}']:.3f}", f"{ends[f'restarts-{rate}']:.3f}") for rate in ("0.1", "0.2", "0.25")]
    cycles = [ends["restarts-0.2"], *(ends[f"restarts-from-{start}"] for start in STARTS)]
    triangles = [ends[f"cyclic-from-{start}"] for start in ("1.55", *STARTS)]
    wide = [share([abs(end - FLAT) < 0.01 for end in found]) for found in (cycles, triangles)]
    words += (
        f"; from 1.55, {', '.join(STARTS)} cosine cycles from 0.2 end in the wide minimum in {wide[0]}, "
        f"triangles between 0.005 and 0.2 in {wide[1]}"
    )
    holds = abs(ends["lr-0.044"] - SHARP) < 0.001 and bounce[0] < 1e-4 and bounce[1] > 0.01
    head = ("rate", "constant: ends at x =", "three cosine cycles from there to 0: ends at x =")
    return Seen(words, holds and abs(ends["lr-0.2"] - SHARP) > 1, (head, *rows))


def sharp_and_flat_picture(runs: Runs) -> Chart:
    def x(variant: str, label: str, colour: int) -> Curve:
        return by_step(runs[variant][0], "point.x", label, colour, until=300)

    valley = panel("x in the sharp valley", [x("lr-0.046", "rate 0.046", 1), x("lr-0.044", "0.044", 0)], "linear")
    return chart([valley, panel("x", [x("lr-0.2", "rate 0.2", 2)], "linear")], "optimizer step")


def distance(run: Trained) -> list[float]:
    """From the minimum at (0, 0), in units of the start's."""
    return [
        math.hypot(x, y) / math.sqrt(2) for x, y in zip(*(run.values(f"point.{axis}") for axis in "xy"), strict=True)
    ]


def momentum(runs: Runs) -> Seen:
    """Steps to a millionth of the start's distance. In theory, without momentum: ln 1e-6 / ln((k - 1) / (k + 1))."""
    rows, holds = [], []
    for condition in (10, 100, 1000):
        plain, heavy = (
            (first_at_most(distance(runs[f"{way}-{condition}"][0]), 1e-6) or 10**9) - 1 for way in ("plain", "momentum")
        )
        theory = math.ceil(math.log(1e-6) / math.log((condition - 1) / (condition + 1)))
        rows.append((f"{condition:,}", str(plain), str(theory), str(heavy), f"{plain / heavy:.1f}"))
        holds.append(abs(plain - theory) <= 1 and heavy < 2 * plain / math.sqrt(condition))
    words = f"{', '.join(row[1] for row in rows)} steps without momentum, {', '.join(row[3] for row in rows)} with"
    head = ("k", "steps without", "in theory", "steps with", "times fewer")
    return Seen(words, all(holds), (head, *rows))


def momentum_picture(runs: Runs) -> Chart:
    curves = []
    for place, condition in enumerate((10, 100, 1000)):
        for way, label in (("plain", ""), ("momentum", ", momentum")):
            ys = distance(runs[f"{way}-{condition}"][0])[:1001]
            ys = ys[: first_at_most(ys, 1e-6)]
            curve = Curve(f"k = {condition:,}{label}", range(len(ys)), ys, place)
            curves.append(dashed(curve) if label else curve)
    return chart([panel("distance from the minimum", curves)], "optimizer step")


def shifted(runs: Runs) -> Seen:
    """The loss 0.2 beside each minimum, which is what a test surface shifted by 0.2 shows at the trained weights."""
    places = {"flat": FLAT, "sharp": SHARP}
    rises = {name: runs[name][0].values("train.loss")[0] - sharp_flat(x) for name, x in places.items()}
    flat, sharp = (f"{rises[name]:.3f}" for name in ("flat", "sharp"))
    words = f"a surface shifted by {SHIFT} costs {flat} in the flat minimum, {sharp} in the sharp one"
    return Seen(words, rises["flat"] < rises["sharp"] / 10)


def shifted_picture(_: Runs) -> Chart:
    xs = [-3.5 + 6 * place / 400 for place in range(401)]
    train = Curve("train", xs, [sharp_flat(x) for x in xs], 0)
    test = dashed(Curve("test: the same, shifted", xs, [sharp_flat(x + SHIFT) for x in xs], 0))
    minima = (FLAT, SHARP)
    dots = [
        Dots("trained here", minima, [sharp_flat(x) for x in minima], 0),
        Dots("tested here", minima, [sharp_flat(x + SHIFT) for x in minima], 1, hollow=True),
    ]
    return Chart("a function and the same one shifted", [Panel("loss", [train, test], "linear", dots=dots)], "x")


CLAIMS = (
    Claim(
        "exact-gradient",
        "The full batch has the exact gradient, one example a noisy one",
        "Every example adds its own slope to the function, and all the slopes together add nothing. The full batch "
        "therefore walks as if there were no noise at all. One example at a time walks another path.",
        "x² from x = 2; 20 examples whose slopes differ by ±1.5 and less; rate 0.1, 60 steps",
        "the path of the full batch is that of the function itself",
        seeds=range(3),
        robust=True,
        judge=exact_gradient,
        picture=exact_gradient_picture,
    ),
    Claim(
        "local-minimum",
        "The noise of one example leaves a local minimum",
        "A double well, and a start in the higher one of its two valleys. Gradient descent rolls to the bottom of "
        "that valley and stays. The noise of one example at a time carries the point over the hill, and a falling "
        "rate settles it in the lower valley. This noise and this rate were made for that: half the rate, or two "
        "examples at a time, escape only sometimes.",
        "(x² - 1)²/4 + 0.15x from x = 1.2; 20 examples whose slopes differ by ±1.5 and less, without replacement; rate "
        "from 0.2 linearly to 0, 300 epochs",
        f"one example ends within 0.05 of x = {LEFT} in at least 95 % of the runs, the full batch within 0.001 "
        f"of {RIGHT} in all",
        seeds=range(30),
        robust=True,
        judge=escapes,
        picture=PathOf(("one-example", "full")),
        also_tried="those of the table below; 30 of 30 says with 95 % confidence that one example escapes in over 90 %",
    ),
    Claim(
        "saddle-point",
        "The noise of one example leaves a saddle point",
        "A start exactly on the ridge, where the gradient points to the saddle and nowhere else. Gradient descent "
        "follows it and stops there. Noise of 0.05 to 0.1 across the ridge is enough to fall off it.",
        "(x² - y²)/2 + y⁴/4 from (1, 0); 4 examples with slopes of ±0.1 and ±0.05 along y; rate 0.1, 400 steps",
        "the full batch keeps y = 0 for all 400 steps, one example at a time ends within 0.2 of |y| = 1",
        seeds=range(50),
        robust=True,
        judge=leaves_saddle,
        picture=PathOf(("one-example", "full")),
    ),
    Claim(
        "sharp-and-flat",
        "A large rate cannot settle in a sharp minimum",
        "Gradient descent settles in a minimum of curvature h while its rate is below 2/h, here 0.0450. A little "
        "above, it bounces in the valley for the whole run. A rate of 0.2 throws it out, here into the wide minimum. "
        "Where it ends is no rule. 0.1 comes back when it decays, and the way out is chaotic: computed with more "
        "digits, 0.2 takes 222 steps to the left, and cycles from 0.25 end on the plain at 2.17. Restarts are not "
        "what does it.",
        "1 - 0.9 exp(-(x + 2)²/2) - exp(-(x - 1.5)²/0.045) from x = 1.55: sharp at 1.5, wide at -2; full batch, 3,000 "
        "steps",
        f"0.044 ends at {SHARP}, 0.046 does not settle, 0.2 ends more than 1 away",
        seeds=range(1),
        robust=True,
        judge=sharp_and_flat,
        picture=sharp_and_flat_picture,
        also_tried="those of the table below; 0.2 is one that leads to the wide minimum",
    ),
    Claim(
        "momentum",
        "Momentum is fast along narrow valleys",
        "In a valley that is much steeper across than along, the rate must be small for the steep direction, which "
        "makes it slow in the other. Momentum adds up the small steps that all point the same way. The narrower the "
        "valley, the more it saves: by about the square root of k, the ratio of the two curvatures.",
        "(x² + k y²)/2 from (1, 1), k = 10, 100, 1,000; full batch; each with its theoretically best rate and momentum",
        "to a millionth of the first distance: without momentum what theory says, give or take a step, with it fewer "
        "than 2/√k of that",
        seeds=range(1),
        robust=True,
        judge=momentum,
        picture=momentum_picture,
    ),
    Claim(
        "shifted-surface",
        "A flat minimum suffers less when the surface shifts",
        "Suppose the test loss were the train loss a little displaced. In a sharp minimum a small displacement costs "
        "much, in a flat one little. This is arithmetic on a formula and no more. Whether flat minima of networks "
        "generalise better, and whether their test surface is a shifted one, are other questions, with entries below.",
        "the function of the entry on sharp minima, 0.2 beside its minima at -2 and 1.5",
        "the flat minimum loses less than a tenth of what the sharp one does",
        seeds=range(1),
        robust=True,
        judge=shifted,
        picture=shifted_picture,
    ),
)
