"""A curve between two minima, compared with the straight line."""

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.figure import (
    SPLITS,
    as_floats,
    draw_empty,
    draw_legend,
    finite_values,
    format_number,
    join_words,
    new_figure,
    plain_label,
    set_y_axis,
    shorten_middle,
)

Numbers = Mapping[str, Any]
STYLES = {"curve": "-", "line": "--"}


def draw_figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`curve`: loss and metrics along both, and `training`: the loss while the curve was trained."""
    yield "curve", draw_curve(numbers)
    yield "training", draw_training(numbers)


def caption_text(numbers: Numbers) -> str:
    """The weights, and how the curve was trained."""
    options = numbers["options"]
    parts = join_words([f"{count:,} {split}" for split, count in numbers["examples"].items()])
    ends = " to ".join(shorten_middle(each) for each in numbers["labels"])
    half = " PARTIAL: it was cancelled." if numbers.get("partial") else ""
    return (
        f"From {ends}. The curve is (1 - t)² w₁ + 2 t (1 - t) θ + t² w₂, its "
        f"θ trained for {numbers['epochs']:,} of {options['epochs']:,} epochs on the train part (lr {options['lr']:g}, "
        f"momentum {options['momentum']:g}, batches of {options['batch_size']:,}, seed {numbers['seed']}). {parts} "
        f"examples, evaluation mode; batch norm, where there is some, {numbers['batch_norm']}.{half}"
    )


def draw_curve(numbers: Numbers) -> Figure:
    """A panel for each metric with all splits: the curve solid, the straight line dashed."""
    splits = list(numbers["examples"])
    metrics = [name for name in numbers["curve"][splits[0]] if name != "barrier"]
    barriers = "; ".join(
        f"{split} {format_number(numbers['line'][split]['barrier'])} on the line and "
        f"{format_number(numbers['curve'][split]['barrier'])} on the curve"
        for split in splits
    )
    length = numbers["length"]
    summary = (
        f"Barriers: {barriers}. Lengths: curve {format_number(length['curve'])}, line {format_number(length['line'])}."
    )
    caption = " ".join([caption_text(numbers), summary, *numbers["caveats"]])
    made = new_figure(caption, height=1.8 + 2.2 * len(metrics))
    axes = made.subplots(len(metrics), 1, sharex=True, squeeze=False, height_ratios=[2] + [1] * (len(metrics) - 1))[
        :, 0
    ]
    for metric, ax in zip(metrics, axes, strict=True):
        shown: list[float] = []
        for split in splits:
            for name, style in STYLES.items():
                values = as_floats(numbers[name][split][metric]["values"])
                label = f"{split}, {'curve' if name == 'curve' else 'straight line'}"
                ax.plot(numbers["t"], values, style, color=SPLITS[split], label=label)
                shown += values.tolist()
        if not len(finite_values(shown)):
            draw_empty(ax)
        if metric == "loss":
            set_y_axis(ax, metric, shown)
        else:
            ax.set_ylabel(metric)
        ax.set_xlim(0, 1)
    draw_legend(axes[0], len(splits))
    axes[-1].set_xlabel(
        f"t: 0 is {plain_label(numbers['labels'][0], 36)}, 1 is {plain_label(numbers['labels'][1], 36)}"
    )
    return made


def draw_training(numbers: Numbers) -> Figure:
    """The mean loss of each epoch's batches, each at a random point of the curve."""
    losses = as_floats(numbers["train_loss"])
    made = new_figure(f"{caption_text(numbers)} Each batch is at a random t.", height=3.0)
    ax = made.subplots()
    ax.plot(range(1, len(losses) + 1), losses, color=SPLITS["train"])
    if not len(finite_values(losses.tolist())):
        draw_empty(ax)
    set_y_axis(ax, "train loss on the curve", losses.tolist())
    ax.set_xlabel("epoch")
    return made
