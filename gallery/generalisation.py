"""Claims about minima, and about the test loss of networks that fit their train set."""

from collections.abc import Sequence

from core.plot.chart import Chart, Dots
from gallery.claim import Claim, Runs, Seen, Trained, mean, pairs, share, span
from gallery.drawing import by_epoch, chart, dashed, panel, variants


def best_place(values: Sequence[float]) -> int:
    """1-based position of the smallest value."""
    return min(range(len(values)), key=lambda index: values[index]) + 1


def stopping_saves(runs: Runs) -> Seen:
    """The test loss of the weights that early stopping returns against those of the full run."""
    rows, wins = [], {}
    for data, prefix in (("30 % wrong labels", ""), ("all labels right", "clean-")):
        both = list(pairs(runs, f"{prefix}stopped", f"{prefix}to-the-end"))
        wins[data] = [a.test_loss() < b.test_loss() for a, b in both]
        losses = [f"{mean(runs[f'{prefix}{name}']):.2f}" for name in ("stopped", "to-the-end")]
        rows.append((data, *losses, share(wins[data])))
    lengths = [
        len(losses) - best_place(losses)
        for name in ("stopped", "clean-stopped")
        for losses in (run.values("val.loss") for run in runs[name])
        if len(losses) < 150
    ]
    noisy, clean = wins.values()
    words = (
        f"with wrong labels test loss {rows[0][1]} against {rows[0][2]}, better in {share(noisy)}; with right ones "
        f"{rows[1][1]} against {rows[1][2]}, better in {share(clean)}; all {len(lengths)} runs that stopped did so "
        f"{span(lengths)} evaluations after the best"
    )
    head = ("train set", "early stopping: test loss", "to the end", "better")
    return Seen(words, all(noisy) and len(lengths) >= len(noisy) and set(lengths) == {10}, (head, *rows))


def stopping_picture(runs: Runs) -> Chart:
    run, stopped = runs["to-the-end"][0], runs["stopped"][0]
    losses = by_epoch(run, "val.loss", "validation", 1)
    cut = stopped.values("val.loss")
    place = best_place(cut)
    dots = [Dots("best", [place], [cut[place - 1]]), Dots("stopped", [len(cut)], [cut[-1]], 2, hollow=True)]
    return chart([panel("loss", [losses, by_epoch(run, "train.loss", "train", 0)], "linear", dots=dots)])


def alike(runs: Runs) -> Seen:
    """How far the test accuracies of all seeds lie apart, and whether these runs have learnt anything at all."""
    accuracies = [run.test_accuracy() for run in runs["seeds"]]
    losses = [run.test_loss() for run in runs["seeds"]]
    words = f"test accuracies {span(accuracies, '.3f')}, test losses {span(losses, '.3f')}"
    return Seen(words, max(accuracies) - min(accuracies) < 0.03 and min(accuracies) > 0.9)


def alike_picture(runs: Runs) -> Chart:
    return chart([
        panel("validation loss", [by_epoch(run, "val.loss", f"seed {run.seed}", run.seed) for run in runs["seeds"]])
    ])  # fmt: skip


def same_classes(runs: Runs) -> Seen:
    """Accuracy equal to the example, loss far apart."""
    both = list(pairs(runs, "short", "long"))
    equal = [a.test_accuracy() == b.test_accuracy() for a, b in both]
    apart = [a.test_loss() > 3 * b.test_loss() for a, b in both]
    accuracies = [run.test_accuracy() for run in runs["long"]]
    words = (
        f"the same accuracy in {share(equal)}, {span(accuracies, '.3f')}; test loss {mean(runs['short']):.3f} after 2 "
        f"epochs, {mean(runs['long']):.3f} after 60 (means)"
    )
    return Seen(words, all(equal) and all(apart))


def same_classes_picture(runs: Runs) -> Chart:
    found = [panel("validation loss", variants(runs, "val.loss", {"long": "loss"}))]
    return chart(
        [*found, panel("validation accuracy", variants(runs, "val.accuracy", {"long": "accuracy"}), "linear", most=1)]
    )


def erratic(runs: Runs) -> Seen:
    """Both networks fit their labels; only one of them has the true labels."""
    worse = [b.test_loss() > a.test_loss() for a, b in pairs(runs, "true", "erratic")]
    fitted = mean(runs["erratic"], lambda run: run.epoch_losses[-1])
    true, wrong = (mean(runs[name], Trained.test_accuracy) for name in ("true", "erratic"))
    losses = [mean(runs[name]) for name in ("true", "erratic")]
    words = (
        f"train loss down to {fitted:.3f} all the same; test accuracy {wrong:.3f} instead of {true:.3f}, test loss "
        f"{losses[1]:.3f} instead of {losses[0]:.3f} (means), worse in {share(worse)}"
    )
    return Seen(words, all(worse) and fitted < 0.1)


def erratic_picture(runs: Runs) -> Chart:
    curves = []
    for place, (variant, label) in enumerate({"true": "right labels", "erratic": "a tenth wrong"}.items()):
        run = runs[variant][0]
        curves.append(by_epoch(run, "val.loss", f"{label}, validation", place))
        curves.append(dashed(by_epoch(run, "train.loss", f"{label}, train", place)))
    return chart([panel("loss", curves)])


CLAIMS = (
    Claim(
        "early-stopping",
        "Early stopping saves from overfitting",
        "Two hundred digits, three in ten of them with a wrong label: a network can learn them by heart, and does. "
        "The validation loss falls first and then rises for the rest of the run. Early stopping ends ten "
        "evaluations after the best one, and returns the best weights. With right labels there is less to save from.",
        "perceptron, 128 hidden units, on 200 digits; SGD at rate 0.1, momentum 0.9, batch 32, at most 150 epochs; "
        "patience 10",
        "with wrong labels a lower test loss than the full run's, and an end exactly 10 evaluations after the best",
        seeds=range(5),
        robust=True,
        judge=stopping_saves,
        picture=stopping_picture,
        drawn="Drawn: seed 0 with wrong labels, trained to the end.",
        also_tried="right labels, in the table",
    ),
    Claim(
        "many-minima",
        "Many minima, all about equally good",
        "Other seeds start elsewhere, see the data in another order and end elsewhere. Whether one of these ends is "
        "the global minimum nobody knows. They are about equally good.",
        "perceptron, 64 hidden units, on digits; SGD at rate 0.1 with a cosine to 0, momentum 0.9, batch 32, 20 epochs",
        "test accuracies of 10 seeds within 3 points, all above 0.9",
        seeds=range(10),
        robust=True,
        judge=alike,
        picture=alike_picture,
        drawn="Drawn: all ten seeds.",
    ),
    Claim(
        "same-classes-other-loss",
        "The same classes, another loss",
        "A score of 0.7 and one of 0.95 choose the same class; the loss tells them apart, the accuracy does not. "
        "Blobs that are easy to separate are all classified alike after two epochs and after sixty. What the model "
        "gains in between is conviction.",
        "softmax regression on three well separated blobs, one draw of them for all seeds; SGD at rate 0.1, batch 32",
        "equal test accuracy, a loss at least three times as high",
        seeds=range(5),
        robust=True,
        judge=same_classes,
        picture=same_classes_picture,
    ),
    Claim(
        "erratic-examples",
        "Erratic examples make bad minima",
        "A tenth of the training labels is wrong. The network finds a minimum that explains them all, the wrong "
        "ones too. It is a minimum of the wrong surface.",
        "perceptron, 128 hidden units, on 600 digits; SGD at rate 0.1, momentum 0.9, batch 32, 60 epochs",
        "fits the train set all the same, to a loss under 0.1, with a higher test loss",
        seeds=range(5),
        robust=True,
        judge=erratic,
        picture=erratic_picture,
    ),
)
