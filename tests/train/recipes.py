"""Six small jobs that have, between them, all that a resume can get wrong."""

from typing import Any, Final

from core.recipe.spec import JobSpec
from tests.train.runs import job

MLP = {"name": "mlp", "hidden": [16, 12], "batch_norm": True, "dropout": 0.2}
CNN = {"name": "cnn", "channels": [4, 6], "hidden": [12], "batch_norm": True, "dropout": 0.2}
MOMENTUM = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
ADAM = {"name": "adam", "lr": 3e-3}
NADAM = {"name": "nadam", "lr": 3e-3, "weight_decay": 0.1, "decoupled_weight_decay": True}

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "rmsprop": {"momentum": 0.5, "centered": True},
    "adamw": {"amsgrad": True},
    "asgd": {"t0": 5.0},
    "schedule_free_sgd": {"warmup_steps": 8},
    "pytorch_optimizer": {"optimizer": "soap", "options": {"precondition_frequency": 3}},
}
"""By optimizer, what makes it use all that it has."""
FULL: Final[dict[str, Any]] = {"batch_size": "full", "epochs": 24}
"""For those that need the gradient of all examples: as many steps as the others take."""


def bumpy(**fields: Any) -> Any:
    """80 steps in epochs of 8 whose last batch is short, windows that no epoch divides, SWA over the last third."""
    return job(
        epochs=10,
        log_every=3,
        schedule={"name": "cosine", "warmup": "1ep"},
        evaluate={"every": "7st"},
        checkpoints={"every": "9st"},
        **{"swa": {"start": "50st", "every": "4st", "anneal": "5st"}, **fields},
    )


def everything(**fields: Any) -> Any:
    """The same 80 steps, each of two micro-batches, with all that a step can do and all that can be kept."""
    return bumpy(
        batch_size=12,
        accumulate=2,
        clip_grad={"norm": 0.5},
        label_smoothing=0.1,
        sampling="with_replacement",
        early_stopping={"monitor": "val.accuracy", "patience": 1000, "start_from": "20st"},
        swa={"start": "50st", "cycle": "4st", "swag": {"samples": 2, "max_rank": 3}},
        ema={"start": "11st", "every": "2st", "warmup": True, "with_swa": True},
        ensemble={"method": "checkpoints", "every": "7st", "members": 3},
        **fields,
    )


RECIPES: Final[dict[str, JobSpec]] = {
    "mlp-momentum": bumpy(model=MLP, optimizer=MOMENTUM),
    "cnn-momentum": bumpy(model=CNN, optimizer=MOMENTUM),
    "mlp-adam": bumpy(model=MLP, optimizer=ADAM),
    "cnn-adam": bumpy(model=CNN, optimizer=ADAM),
    "everything": everything(model=MLP, optimizer=MOMENTUM, no_decay=["bias", "norm"]),
    "everything-nadam": everything(model=CNN, optimizer=NADAM, no_decay=["norm"]),
}
