"""The results of a run: its latest metrics, by weights, split and metric."""

from core.engine.run import Results, Run

SPLITS = {"function": "train"}  # a function is the mean over the train part


def results_by_weights(run: Run) -> Results:
    """{"base": {"val": {"loss": …}, "test": …}, "swa": …, "best": …}; restored best weights replace the last ones."""
    found: Results = {"base": {}}  # base is the first key in every case
    for name, value in run.train_state.metrics.items():
        *weights, split, metric = name.split(".")
        found.setdefault("".join(weights) or "base", {}).setdefault(SPLITS.get(split, split), {})[metric] = value
    if run.best and run.best.restores_best:
        found[run.best.weights] |= {split: dict(values) for split, values in found["best"].items()}
    return {weights: splits for weights, splits in found.items() if splits}


def results_so_far(run: Run) -> Results:
    """The results of a run that ends without a test: those of its best weights and of its last complete cycle."""
    found = results_by_weights(run)
    restored = (run.best.weights,) if run.best and run.best.restores_best else ()
    return {weights: found[weights] for weights in (*restored, "best", "incumbent") if weights in found}


def metrics_of(run: Run, weights: str) -> dict[str, float]:
    """The latest metrics of some weights, or of the best weights that replace them, without the prefix."""
    replaced = run.best and run.best.restores_best and run.best.weights == weights
    prefix = "best." if replaced else f"{weights}."
    return {
        name.removeprefix(prefix): value for name, value in run.train_state.metrics.items() if name.startswith(prefix)
    }
