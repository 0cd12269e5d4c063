"""Claims about the size of a batch."""

from collections.abc import Sequence
from statistics import fmean

from core.plot.chart import Chart, Curve, Dots, Level
from gallery.claim import Claim, Runs, Seen, Trained, first_at_most, share, span
from gallery.drawing import chart, panel, variants

EXAMPLES = 600
SIZES = {"batch-1": 1, "batch-8": 8, "batch-30": 30, "batch-120": 120, "full": EXAMPLES}
BATCHES = {
    "batch-1": "batch 1, rate 0.02",
    "batch-8": "batch 8",
    "batch-32": "batch 32",
    "batch-128": "batch 128",
    "full": "full batch",
}
BOUND = 0.2


def noise(run: Trained, exact: float) -> float:
    """The variance of the gradient around the exact one, summed over all weights, which do not move here."""
    return fmean(norm**2 for norm in run.values("grad_norm")) - exact


def noise_law(runs: Runs) -> Seen:
    """Var = S/B (1 - B/N). Batches of one give S: an epoch of them is every example's gradient once."""
    ratios: dict[str, list[float]] = {"batch-8": [], "batch-30": [], "batch-120": []}
    spreads = []
    for place, full in enumerate(runs["full"]):
        norms = full.values("grad_norm")
        spreads.append((max(norms) - min(norms)) / min(norms))
        exact = fmean(norm**2 for norm in norms)
        single = noise(runs["batch-1"][place], exact) * EXAMPLES / (EXAMPLES - 1)  # S
        for variant, found in ratios.items():
            law = single / SIZES[variant] * (1 - SIZES[variant] / EXAMPLES)
            found.append(noise(runs[variant][place], exact) / law)
    told = ", ".join(f"{variant.replace('-', ' ')}: {span(values, '.3f')}" for variant, values in ratios.items())
    words = f"measured over predicted variance: {told}; norms of the full batch differ by {told_spread(max(spreads))}"
    holds = all(abs(ratio - 1) < 0.1 for values in ratios.values() for ratio in values)
    return Seen(words, holds and max(spreads) < 1e-4)


def told_spread(share: float) -> str:
    return f"{share:.0e} of their size at most" if share else "exactly 0"


def noise_law_picture(runs: Runs) -> Chart:
    """The law as a curve, what was measured as dots on it."""
    exact = fmean(norm**2 for norm in runs["full"][0].values("grad_norm"))
    sizes = [SIZES[variant] for variant in SIZES if variant != "full"]
    measured = [noise(runs[variant][0], exact) for variant in SIZES if variant != "full"]
    single = measured[0] * EXAMPLES / (EXAMPLES - 1)
    law = Curve("S/B (1 - B/N)", range(1, 151), [single / size * (1 - size / EXAMPLES) for size in range(1, 151)], 0)
    return chart([panel("variance of the gradient", [law], dots=[Dots("measured", sizes, measured, 1)])], "batch size")


def fewer_epochs(runs: Runs) -> Seen:
    """Epochs until the epoch's mean loss is at most 0.2, batch 8 < 128 < full, in every seed."""
    found = {
        variant: [first_at_most(each.epoch_losses, BOUND) or 10**9 for each in runs[variant]] for variant in BATCHES
    }
    wins = [a < b < c for a, b, c in zip(found["batch-8"], found["batch-128"], found["full"], strict=True)]
    rows = [
        (BATCHES[variant], span(epochs), span([round(each * runs[variant][0].steps_per_epoch) for each in epochs]))
        for variant, epochs in found.items()
    ]
    words = ", ".join(
        f"{BATCHES[variant]}: {span(found[variant])} epochs" for variant in ("batch-8", "batch-128", "full")
    )
    return Seen(f"{words}; in that order in {share(wins)}", all(wins), (("", "epochs", "updates"), *rows))


def fewer_epochs_picture(runs: Runs) -> Chart:
    return chart([panel("train loss", variants(runs, "train.loss", BATCHES), levels=[Level(BOUND, "0.2")])])


CLAIMS: Sequence[Claim] = (
    Claim(
        "noise-law",
        "A larger batch has less noise, in proportion",
        "The gradient of a batch varies around that of the whole set. Its variance is S/B (1 - B/N): S is that of "
        "single examples, B the batch, N all of them. The full batch has none. Here the weights stand still, at a "
        "rate of 1e-12, so that nothing but the batch changes.",
        "perceptron, 64 hidden units, as it is initialised, on 600 digits; from the norms of its gradients",
        "variances within 10 % of the law for batches of 8, 30 and 120; full batches that are all alike",
        seeds=range(3),
        robust=True,
        judge=noise_law,
        picture=noise_law_picture,
    ),
    Claim(
        "epochs-by-batch",
        "Smaller batches need fewer epochs",
        "A full batch follows the exact gradient, and takes one step for it in a whole pass over the data. A small "
        "batch follows a noisy one, and takes many steps in the same pass. Counted in passes, the small batch is "
        "faster. Counted in updates it is not, at this one rate: the noise costs steps, and the best rate of each "
        "batch was not looked for.",
        "perceptron, 64 hidden units, on 600 digits; SGD at rate 0.1 without momentum, batch 1 at 0.02",
        "epochs to a train loss of 0.2: batch 8 < batch 128 < full batch",
        seeds=range(5),
        robust=True,
        judge=fewer_epochs,
        picture=fewer_epochs_picture,
    ),
)
