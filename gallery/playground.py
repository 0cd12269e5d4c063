"""Claims that one can see on a function of one or two numbers."""

import math

from gallery.claim import Claim, Picture, Runs, Seen, Trained, first_at_most, pairs, share

LEFT, RIGHT = -1.0679, 0.9143  # the minima of (x²-1)²/4 + 0.15 x; the left one is the lower


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
        max(abs(x - y) for x, y in zip(a.values("point.x"), b.values("point.x"), strict=False))
        for a, b in pairs(runs, "one-example", "noiseless")
    ]
    words = (
        f"the full batch strays by {max(gaps):.0e} at most from the path without noise, one example by {min(apart):.2f}"
    )
    return Seen(words, max(gaps) < 1e-5 and min(apart) > 0.1)


def escapes(runs: Runs) -> Seen:
    """Ends beside the lower minimum: left of the hill."""
    one = [abs(last(run, "point.x") - LEFT) < 0.05 for run in runs["one-example"]]
    full = [abs(last(run, "point.x") - RIGHT) < 0.001 for run in runs["full"]]
    words = f"one example at a time reaches the lower minimum in {share(one)}; the full batch stays in {share(full)}"
    return Seen(words, sum(one) >= 0.95 * len(one) and all(full))


def leaves_saddle(runs: Runs) -> Seen:
    """|y| = 1 at both minima, 0 on the ridge."""
    stuck = [set(run.values("point.y")) == {0.0} for run in runs["full"]]
    free = [abs(abs(last(run, "point.y")) - 1) < 0.2 for run in runs["one-example"]]
    steps = [first_at_most([-abs(y) for y in run.values("point.y")], -0.5) for run in runs["one-example"]]
    median = sorted(step or 10**9 for step in steps)[len(steps) // 2]
    words = f"the full batch never leaves the ridge ({share(stuck)}); one example does in {share(free)}, "
    words += f"after {median} steps (median)"
    return Seen(words, all(stuck) and all(free))


def sharp_and_flat(runs: Runs) -> Seen:
    """Gradient descent holds a minimum of curvature 44.42 exactly while lr < 2 / 44.42 = 0.0450."""
    ends = {variant: last(jobs[0], "point.x") for variant, jobs in runs.items()}
    stays = abs(ends["lr-0.044"] - 1.4998) < 0.01
    leaves = abs(ends["lr-0.046"] - 1.4998) > 0.01
    restarts = abs(ends["restarts"] + 2) < 0.1
    words = f"lr 0.044 ends at x = {ends['lr-0.044']:.3f}, lr 0.046 at {ends['lr-0.046']:.3f}, "
    words += f"SGDR up to 0.2 at {ends['restarts']:.3f}"
    return Seen(words, stays and leaves and restarts)


def momentum(runs: Runs) -> Seen:
    """Steps until |x| <= 1e-6 of its start, in a valley a hundred times as long as wide."""

    def steps(variant: str) -> int:
        xs, ys = (runs[variant][0].values(f"point.{axis}") for axis in "xy")
        return first_at_most([math.hypot(x, y) for x, y in zip(xs, ys, strict=True)], 1e-6 * math.sqrt(2)) or 10**9

    plain, heavy = steps("plain") - 1, steps("momentum") - 1
    return Seen(f"{plain} steps without momentum, {heavy} with", heavy < plain / 4)


def shifted(runs: Runs) -> Seen:
    """The loss 0.2 beside each minimum, which is what a test surface shifted by 0.2 shows at the trained weights."""
    rises = {
        variant: jobs[0].values("train.loss")[0] - bottom
        for (variant, jobs), bottom in zip(sorted(runs.items()), (0.1, -0.0021), strict=True)
    }
    words = (
        f"a surface shifted by 0.2 costs {rises['flat']:.3f} in the flat minimum, {rises['sharp']:.3f} in the sharp one"
    )
    return Seen(words, rises["flat"] < rises["sharp"] / 10)


CLAIMS = (
    Claim(
        "exact-gradient",
        "The full batch has the exact gradient, one example a noisy one",
        "Every example adds its own slope to the function, and all the slopes together add nothing. The full batch "
        "therefore walks as if there were no noise at all. One example at a time walks another path.",
        "the path of the full batch is that of the function itself",
        seeds=3,
        robust=True,
        judge=exact_gradient,
        picture=Picture(("one-example", "full"), ("point.x",)),
    ),
    Claim(
        "local-minimum",
        "The noise of one example leaves a local minimum",
        "A double well, and a start in the higher one of its two valleys. Gradient descent rolls to the bottom of "
        "that valley and stays. The noise of one example at a time carries the point over the hill, and a falling "
        "rate settles it in the lower valley.",
        f"one example ends at x = {LEFT} in 95 % of the runs, the full batch at {RIGHT} in all",
        seeds=20,
        robust=True,
        judge=escapes,
        picture=Picture(("one-example", "full"), (), {"kind": "path"}),
    ),
    Claim(
        "saddle-point",
        "The noise of one example leaves a saddle point",
        "A start exactly on the ridge, where the gradient points to the saddle and nowhere else. Gradient descent "
        "follows it and stops there for good. The least noise across the ridge is enough to fall off it.",
        "the full batch keeps y = 0 for ever, one example at a time reaches |y| = 1",
        seeds=10,
        robust=True,
        judge=leaves_saddle,
        picture=Picture(("one-example", "full"), (), {"kind": "path"}),
    ),
    Claim(
        "sharp-and-flat",
        "A large rate cannot stay in a sharp minimum",
        "The minimum at 1.5 is sharp, the one at -2 is wide. Gradient descent holds a minimum of curvature h while "
        "its rate is below 2/h, here 0.0450. Restarts of a high rate therefore leave the sharp one and end in the "
        "wide one.",
        "lr 0.044 ends at 1.4998, lr 0.046 cannot settle there; SGDR from 0.2 ends at -2",
        seeds=1,
        robust=True,
        judge=sharp_and_flat,
        picture=Picture(("lr-0.044", "lr-0.046", "restarts"), (), {"kind": "path"}),
    ),
    Claim(
        "momentum",
        "Momentum is fast along narrow valleys",
        "A valley a hundred times as steep across as along. The rate must be small for the steep direction, which "
        "makes it slow in the other. Momentum adds up the small steps that all point the same way.",
        "fewer than a quarter of the steps",
        seeds=1,
        robust=True,
        judge=momentum,
        picture=Picture(("plain", "momentum"), (), {"kind": "path"}),
    ),
    Claim(
        "shifted-surface",
        "A flat minimum suffers less when the surface shifts",
        "The loss of the test set is the loss of the train set a little displaced. In a sharp minimum a small "
        "displacement costs much, in a flat one little. Both points here stand 0.2 beside their minimum.",
        "the flat minimum loses less than a tenth of what the sharp one does",
        seeds=1,
        robust=True,
        judge=shifted,
        picture=Picture(("flat", "sharp"), (), {"kind": "path"}),
    ),
)
