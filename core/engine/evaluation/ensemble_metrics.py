"""Metrics of ensembles: of each member, of the mean of their predictions, and of the mean of their weights."""

from collections.abc import Iterable

from torch import Tensor

from core.engine.datasets.split import Split
from core.engine.evaluation.evaluate import compute_metrics, predict_split
from core.engine.networks.network import Network
from core.engine.run import Run
from core.engine.weights.ensemble import MIXTURES, Ensemble, Mixture

Metrics = dict[str, float]


def metrics_at_collection(run: Run, ensemble: Ensemble) -> Metrics:
    """Of the newest member and of the present ensemble, on the validation split: member.val.*, ensemble.val.*."""
    if not len(run.data.validation):
        return {}
    outputs, mixture = ensemble.member_outputs(run.data.validation), _new_mixture(run)
    for each in outputs:
        mixture.add_member(each)
    return _prefixed_metrics(run, "member.val", outputs[-1]) | _prefixed_metrics(
        run, "ensemble.val", mixture.mean_outputs()
    )


def member_metrics(run: Run, ensemble: Ensemble, step: int) -> Metrics:
    """Of the member of that step on the validation split: val.loss …"""
    if not len(run.data.validation):
        return {}
    return _prefixed_metrics(
        run, "val", ensemble.member_outputs(run.data.validation)[ensemble.member_steps.index(step)]
    )


def metrics_at_end(run: Run) -> Metrics:
    """On all held-out splits: member_1.* (the oldest) and so on, ensemble.*, average.*, swag.*.

    `average` is a single network whose weights are the mean of the members'.
    """
    found: Metrics = {}
    train, batch_size = run.data.train, run.shape.batch
    if run.ensemble and run.ensemble.ready:
        found |= _mixture_metrics(run, "ensemble", run.ensemble.member_networks(), each_as="member")
        found |= _mixture_metrics(run, "average", (run.ensemble.average_weights(train, batch_size),))
    if run.swag and run.swag.ready:
        found |= _mixture_metrics(run, "swag", run.swag.sample_networks(train, batch_size))
    return found


def _mixture_metrics(run: Run, weights: str, networks: Iterable[Network], each_as: str | None = None) -> Metrics:
    """Metrics of the mean prediction, named `weights`.*, and of each network, `each_as`_1.* …, if that is given."""
    parts = {"val": run.data.validation, "test": run.data.test}
    held_out: dict[str, Split] = {split: part for split, part in parts.items() if len(part)}
    mixtures = {split: _new_mixture(run) for split in held_out}
    found: Metrics = {}
    for number, network in enumerate(networks, 1):
        for split, part in held_out.items():
            outputs = predict_split(network, part)
            mixtures[split].add_member(outputs)
            if each_as:
                found |= _prefixed_metrics(run, f"{each_as}_{number}.{split}", outputs)
    for split, mixture in mixtures.items():
        found |= _prefixed_metrics(run, f"{weights}.{split}", mixture.mean_outputs())
    return found


def _new_mixture(run: Run) -> Mixture:
    return MIXTURES[run.spec.data.facts().task]()


def _prefixed_metrics(run: Run, prefix: str, outputs: Tensor) -> Metrics:
    part = run.data.test if prefix.endswith("test") else run.data.validation
    return {f"{prefix}.{name}": value for name, value in compute_metrics(outputs, part, run.objective).items()}
