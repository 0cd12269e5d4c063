"""Claims about how flat the minima are that training finds, by the service's own measures of sharpness."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from core.plot.chart import Chart
from gallery.claim import Claim, Look, Request, Runs, Seen, Trained, by_chance, pairs, share, span
from gallery.drawing import of_seeds

LOSS = 0.02
MEASURES = {"lambda_max": "largest curvature", "trace": "trace", "filter_noise": "rise under filter noise"}
ASKED = ("filter_noise", "eigenvalues", "trace")
BATCHES = {"small": "batch 16, rate 0.1", "full": "full batch, rate 0.1", "full-fast": "full batch, rate 0.4"}
RHOS = {"plain": "no SAM", "rho-0.05": "rho 0.05", "rho-0.2": "rho 0.2"}
WEIGHTS = ("SWA", "one decay", "last weights of SWA's run")
Values = dict[str, list[float]]
"""A number for each seed, by what it is of."""


def ways(runs: Runs) -> Iterator[tuple[Trained, Request]]:
    """The train and test loss of every checkpoint that the jobs have kept."""
    for run in (run for jobs in runs.values() for run in jobs):
        yield run, {"kind": "trajectory", "job": run.job, "steps": 0, "splits": ["train", "test"]}


def matched(run: Trained) -> Mapping[str, Any]:
    """The checkpoint whose train loss is nearest to LOSS."""
    path: Sequence[Mapping[str, Any]] = run.found["ways"].numbers["path"]
    return min(path, key=lambda place: abs(float(place["train"]["loss"]) - LOSS))


def matched_sharpness(runs: Runs) -> Iterator[tuple[Trained, Request]]:
    for jobs in pairs(runs, *BATCHES):
        yield jobs[0], sharpness([{"checkpoint": matched(run)["checkpoint"]} for run in jobs], jobs[0].seed)


def sharpness(checkpoints: Sequence[Mapping[str, str]], seed: int) -> Request:
    """Several weights by the same measures, with the same random directions and probes."""
    return {"kind": "sharpness", "checkpoints": checkpoints, "measures": ASKED, "seed": seed}


def measured(jobs: Sequence[Trained], measure: str, names: Sequence[str]) -> Values:
    """One measure of the sharpness of each job's weights; `names` are the weights in the order of the request."""
    rows = [run.found["sharpness"].measure(measure) for run in jobs]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def losses(jobs: Sequence[Trained], names: Sequence[str]) -> Values:
    """The train losses at which this was measured."""
    rows = [[each["train_loss"] for each in run.found["sharpness"].numbers["subjects"]] for run in jobs]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def lower(values: Values, ours: str, theirs: str) -> list[bool]:
    return [a < b for a, b in zip(values[ours], values[theirs], strict=True)]


def rows_of(jobs: Sequence[Trained], names: Sequence[str]) -> list[tuple[str, ...]]:
    """A row for each of the weights: its train loss, and each measure as a mean over the seeds."""
    found = {measure: measured(jobs, measure, names) for measure in MEASURES}
    at = losses(jobs, names)
    return [
        (name, format(fmean(at[name]), ".4f"), *(format(fmean(values[name]), ".3g") for values in found.values()))
        for name in names
    ]


HEAD = ("train loss", *MEASURES.values())


def small_is_flatter(runs: Runs) -> Seen:
    """All three measures, at train losses that differ by at most a twentieth."""
    jobs = runs["small"]
    at = [loss for each in losses(jobs, list(BATCHES)).values() for loss in each]
    wins, told = [], []
    for measure, name in MEASURES.items():
        values = measured(jobs, measure, list(BATCHES))
        won = lower(values, "small", "full")
        told.append(f"{name} {fmean(values['small']):.3g} against {fmean(values['full']):.3g}, lower in {share(won)}")
        wins += won
    rows = [(BATCHES[row[0]], *row[1:]) for row in rows_of(jobs, list(BATCHES))]
    words = f"at train losses of {span(at, '.4f')}, batch 16 against the full batch (means): {'; '.join(told)}"
    equal = all(abs(loss - LOSS) < 0.05 * LOSS for loss in at)
    return Seen(words, all(wins) and equal, (("", *HEAD), *rows))


def rate_is_flatter(runs: Runs) -> Seen:
    """The largest curvature alone, which is what the rate bounds."""
    values = measured(runs["small"], "lambda_max", list(BATCHES))
    won = lower(values, "full-fast", "small")
    slow = lower(values, "full-fast", "full")
    others = ", ".join(
        f"{MEASURES[measure]} in {share(lower(measured(runs['small'], measure, list(BATCHES)), 'full-fast', 'small'))}"
        for measure in ("trace", "filter_noise")
    )
    words = (
        f"largest curvature {fmean(values['full-fast']):.3g} against {fmean(values['small']):.3g} of batch 16 (means), "
        f"lower in {share(won)}, and {fmean(values['full']):.3g} of the full batch at rate 0.1, lower in "
        f"{share(slow)}; below batch 16 also by {others}"
    )
    return Seen(words, sum(won) >= 0.8 * len(won) and all(slow))


def batches_picture(measures: Sequence[str]) -> Callable[[Runs], Chart]:
    """A panel for each measure, a dot for each seed."""

    def picture(runs: Runs) -> Chart:
        charts = []
        for measure in measures:
            values = measured(runs["small"], measure, list(BATCHES))
            charts.append(of_seeds(runs["small"], {BATCHES[each]: values[each] for each in values}, MEASURES[measure]))
        panels = [panel for each in charts for panel in each.panels]
        return Chart("; ".join(each.summary for each in charts), panels, "seed", x_whole=True, one_legend=True)

    return picture


def tested(runs: Runs, metric: str) -> Values:
    """On the test part, at the matched checkpoints."""
    return {variant: [float(matched(run)["test"][metric]) for run in runs[variant]] for variant in BATCHES}


def flat_generalises(runs: Runs) -> Seen:
    """Both test loss and test accuracy are better at the flatter weights."""
    loss, accuracy = tested(runs, "loss"), tested(runs, "accuracy")
    better = lower(loss, "small", "full")
    right = [a > b for a, b in zip(accuracy["small"], accuracy["full"], strict=True)]
    gaps = [b - a for a, b in zip(loss["small"], loss["full"], strict=True)]
    chances = [by_chance(sum(won), len(won)) for won in (better, right)]
    words = (
        f"test loss {fmean(loss['small']):.4f} with batch 16, {fmean(loss['full']):.4f} with the full batch (means), "
        f"{fmean(gaps):.4f} apart, lower in {share(better)} (by chance: {chances[0]:.3f}); accuracy "
        f"{fmean(accuracy['small']):.4f} and {fmean(accuracy['full']):.4f}, higher in {share(right)} (by chance: "
        f"{chances[1]:.3f})"
    )
    rows = [
        (label, format(fmean(loss[variant]), ".4f"), format(fmean(accuracy[variant]), ".4f"))
        for variant, label in BATCHES.items()
    ]
    return Seen(words, max(chances) < 0.05, (("", "test loss", "test accuracy"), *rows))


def flat_generalises_picture(runs: Runs) -> Chart:
    values = tested(runs, "loss")
    return of_seeds(runs["small"], {label: values[variant] for variant, label in BATCHES.items()}, "test loss")


def averages(runs: Runs) -> Iterator[tuple[Trained, Request]]:
    """SWA's weights, those of a decay of the same length, and the last ones of SWA's own run."""
    for prefix in ("", "clean-"):
        for swa, decayed in pairs(runs, f"{prefix}swa", f"{prefix}decayed"):
            asked = [
                {"job": swa.job, "weights": "swa"},
                {"job": decayed.job, "weights": "last"},
                {"job": swa.job, "weights": "last"},
            ]
            yield swa, sharpness(asked, swa.seed)


def swa_is_flatter(runs: Runs) -> Seen:
    """The mean over the seeds, with wrong labels. Single runs differ."""
    told, table = [], []
    for data, prefix in (("a tenth of the labels wrong", ""), ("all labels right", "clean-")):
        jobs = runs[f"{prefix}swa"]
        values = measured(jobs, "lambda_max", WEIGHTS)
        won = lower(values, *WEIGHTS[:2])
        means = [fmean(values[name]) for name in WEIGHTS]
        noise = measured(jobs, "filter_noise", WEIGHTS)
        told.append((data, means, won, [fmean(noise[name]) for name in WEIGHTS], lower(noise, *WEIGHTS[:2])))
        table += [(data, *row) for row in rows_of(jobs, WEIGHTS)]
    words = "; ".join(
        f"{data}: largest curvature {means[0]:.3g} against {means[1]:.3g} (means), lower in {share(won)}, rise under "
        f"filter noise {rises[0]:.3g} against {rises[1]:.3g}, lower in {share(less)}"
        for data, means, won, rises, less in told
    )
    noisy = told[0][1]
    return Seen(words, noisy[0] < noisy[1], (("train set", "weights", *HEAD), *table))


def swa_picture(runs: Runs) -> Chart:
    return of_seeds(runs["swa"], measured(runs["swa"], "lambda_max", WEIGHTS), "largest curvature", "log")


def rhos(runs: Runs) -> Iterator[tuple[Trained, Request]]:
    for jobs in pairs(runs, *RHOS):
        yield jobs[0], sharpness([{"job": run.job} for run in jobs], jobs[0].seed)


def sam_is_flatter(runs: Runs) -> Seen:
    """In order of rho, in every seed."""
    jobs = runs["plain"]
    values = measured(jobs, "lambda_max", list(RHOS))
    order = [a > b > c for a, b, c in zip(*values.values(), strict=True)]
    at = losses(jobs, list(RHOS))
    words = (
        f"largest curvature {', '.join(f'{fmean(each):.3g}' for each in values.values())} (means), in that order in "
        f"{share(order)}; the train losses are not equal: {', '.join(f'{fmean(each):.2f}' for each in at.values())}"
    )
    rows = [
        (RHOS[row[0]], *row[1:], format(fmean([run.test_accuracy() for run in runs[row[0]]]), ".3f"))
        for row in rows_of(jobs, list(RHOS))
    ]
    return Seen(words, all(order), (("", *HEAD, "test accuracy"), *rows))


def sam_picture(runs: Runs) -> Chart:
    values = measured(runs["plain"], "lambda_max", list(RHOS))
    return of_seeds(runs["plain"], {label: values[variant] for variant, label in RHOS.items()}, "largest curvature")


CLAIMS = (
    Claim(
        "batch-and-flatness",
        "Small batches end in flatter minima",
        "Two runs that differ in the size of their batches are compared at the same train loss. Around the weights "
        "that the small batch found, the loss curves less, by three measures that are not the same. A job's target is "
        "a loss on examples held out, never a train loss; so every run keeps checkpoints on its way, and the one whose "
        f"train loss is nearest to {LOSS} is taken. The rate is the same in both, and the next entry says why that "
        "matters.",
        "perceptron, 128 and 128 hidden units, on 400 digits; SGD at rate 0.1 without momentum; curvatures of the "
        "train loss by 30 steps of Lanczos, trace by 30 probes, rise by 10 directions at radius 0.3",
        f"batch 16 below the full batch by all three measures in every run, at train losses within 5 % of {LOSS}",
        seeds=range(10),
        robust=True,
        judge=small_is_flatter,
        picture=batches_picture(tuple(MEASURES)),
        drawn="Drawn: all ten seeds.",
        also_tried=(
            "one layer of 64 hidden units, the same seeds: batch 16 was below the full batch by all three measures in "
            "10/10 too"
        ),
        looks=(Look("ways", ways), Look("sharpness", matched_sharpness)),
    ),
    Claim(
        "rate-and-flatness",
        "A larger rate does the same",
        "Here the full batch at four times the rate ends in a minimum that is flatter than that of the small batch. So "
        "a flat minimum is no mark of a small batch, and whoever compares the flatness of two recipes may be comparing "
        "their rates. Descent cannot settle where the curvature is above 2 over the rate, which is 20 at rate 0.1 and "
        "5 at rate 0.4; both full batches stay below that here.",
        "the jobs of the entry above, at the same train loss",
        "the largest curvature of the full batch at rate 0.4 below that of batch 16 at rate 0.1 in 8 of 10, and below "
        "that of the full batch at rate 0.1 in every run",
        seeds=range(10),
        robust=True,
        judge=rate_is_flatter,
        picture=batches_picture(("lambda_max",)),
        drawn="Drawn: all ten seeds.",
        also_tried=(
            "one layer of 64 hidden units, the same seeds: there the full batch at rate 0.4 was flatter than at rate "
            "0.1 in 10/10, but than batch 16 in 1/10 only (largest curvature 2.84 against 2.66, means), so this half "
            "of the claim depends on the network"
        ),
        jobs_of="batch-and-flatness",
    ),
    Claim(
        "flat-generalises",
        "Do flat minima generalise better?",
        "The essay says so, and papers disagree. Here the runs of the entries above are tested at the weights whose "
        "sharpness was measured. Whatever comes out is a statement about a small network on the digits.",
        "the jobs of the entry above, at the same train loss, on 1,038 digits",
        "lower test loss and higher accuracy with batch 16 than with the full batch, both more often than chance "
        "explains (one-sided sign test, ties against the claim, p < 0.05)",
        seeds=range(10),
        robust=False,
        judge=flat_generalises,
        picture=flat_generalises_picture,
        drawn="Drawn: all ten seeds.",
        also_tried="one layer of 64 hidden units, the same seeds: lower test loss in 7/10, by 0.0015 on average",
        jobs_of="batch-and-flatness",
    ),
    Claim(
        "swa-flatter",
        "The average of weights is flatter than a decayed run",
        "SWA averages weights at a rate that does not decay, and the mean of places around a valley lies nearer to its "
        "middle. That is asserted of the largest curvature alone, of its mean over the seeds, and with wrong labels. "
        "The rise under filter noise, which is blind to the scale of the weights, says the opposite there, if by "
        "little. Nor are the train losses equal: SWA's is the lower, and curvature falls with the loss, so that the "
        "average may be flat because it is low.",
        "convolutional network with batch norm, 8 and 16 channels, on 300 digits; SGD at rate 0.1, momentum 0.9, batch "
        "32, 30 epochs; a cosine to 0, or until epoch 18 and then SWA at rate 0.05; statistics of batch norm as they "
        "are stored",
        "with a tenth of the labels wrong, the mean of the largest curvatures lower for SWA",
        seeds=range(8),
        robust=True,
        judge=swa_is_flatter,
        picture=swa_picture,
        drawn="Drawn: all eight seeds, with wrong labels.",
        looks=(Look("sharpness", averages),),
    ),
    Claim(
        "sam-flatter",
        "SAM finds flatter minima",
        "Sharpness-aware minimisation takes the gradient not where the weights are but a step of length rho uphill, "
        "and so descends what is high around them. The further it looks, the flatter is where it ends. At rho 0.2 it "
        "fits the train set, wrong labels included, less well in the same time: the losses at which this is compared "
        "are not equal.",
        "perceptron, 128 hidden units, on 300 digits of which a fifth has a wrong label; SGD at rate 0.1, batch 32, 60 "
        "epochs",
        "largest curvature without SAM > rho 0.05 > rho 0.2 in every run",
        seeds=range(8),
        robust=True,
        judge=sam_is_flatter,
        picture=sam_picture,
        drawn="Drawn: all eight seeds.",
        also_tried=(
            "64 hidden units with momentum 0.9, 100 epochs, seeds 0 to 2: without SAM and at rho 0.05 the network then "
            "knows the wrong labels by heart (train loss 0.002) and all is flat; at rho 0.2 it does not yet, and is "
            "the sharpest in 3/3. Two layers of 128 for 30 epochs, and one for 40 and for 80, seeds 0 and 1: in that "
            "order in 2/2 each"
        ),
        looks=(Look("sharpness", rhos),),
    ),
)
