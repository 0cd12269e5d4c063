"""The jobs that are tried on a GPU. Their data is generated: no scikit-learn is needed where they run."""

from typing import Any, Final

from core.recipe.catalog import component_classes
from core.recipe.spec import JobSpec
from tests.train.recipes import FULL, OPTIONS, everything
from tests.train.runs import job

IMAGES: Final[dict[str, Any]] = {"name": "gaussian_images", "examples": 256, "validation": 0.15, "test": 0.15}
"""180 train examples, as many for the two other parts together; 10 classes of 8 by 8 pixels."""

MODELS: Final[dict[str, dict[str, Any]]] = {
    "mlp": {"name": "mlp", "hidden": [32, 32]},
    "cnn": {"name": "cnn", "channels": [4, 6], "hidden": [12], "batch_norm": True, "dropout": 0.2},
}
STEPS: Final = 24
SWA: Final[dict[str, Any]] = {"start": "10st", "every": "3st"}


def stepped(optimizer: str, model: str, **fields: Any) -> JobSpec:
    """24 steps of an optimizer that the catalog names, averaged where it does not average by itself."""
    kind: Any = component_classes("optimizers")[optimizer]
    base: dict[str, Any] = {
        "model": MODELS[model],
        "data": IMAGES,
        "optimizer": {"name": optimizer, "lr": 0.01, **OPTIONS.get(optimizer, {})},
        **(FULL if kind.full_batch else {}),
        **({} if kind.averages or kind.constant_lr_reason else {"swa": SWA}),
    }
    return job(**base, **fields)


def stepped_specs() -> dict[str, JobSpec]:
    """Every optimizer of the catalog with a network that is written out and with one that goes through autograd."""
    return {
        f"{name}-{model}": stepped(name, model) for name in sorted(component_classes("optimizers")) for model in MODELS
    }


def further_specs() -> dict[str, JobSpec]:
    """What else keeps a state: SAM, averages, ensembles, best weights, and a run that diverges and goes back."""
    normed = {"name": "mlp", "hidden": [16, 12], "batch_norm": True, "dropout": 0.2}
    momentum = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
    return {
        "sam": stepped("sgd", "cnn", sam={"rho": 0.05, "interval": 2}),
        "asam": stepped("adam", "mlp", sam={"rho": 0.5, "adaptive": True}),
        "ema": stepped("adamw", "cnn", ema={"start": "3st", "every": "2st", "warmup": True, "with_swa": True}),
        "ensemble": job(
            model=MODELS["cnn"],
            data=IMAGES,
            optimizer=momentum,
            ensemble={"method": "checkpoints", "every": "5st", "members": 3},
        ),
        "rollback": diverging(),
        "everything": everything(model=normed, optimizer=momentum, data=IMAGES, no_decay=["bias", "norm"]),
    }


def learning() -> JobSpec:
    """A network that has learnt something after a second."""
    data = {"name": "gaussian_images", "examples": 2000, "noise": 0.3}
    return job(model=MODELS["cnn"], data=data, optimizer={"name": "adam", "lr": 3e-3}, epochs=6)


def diverging() -> JobSpec:
    """Its rate is so high that the losses overflow at once; a rollback makes it one that trains."""
    return job(
        model={"name": "mlp", "hidden": [16, 16, 16]},
        data=IMAGES,
        optimizer={"name": "sgd", "lr": 1e14},
        checkpoints={"every": "4st"},
        rollback={"factor": 1e-16, "times": 2},
    )
