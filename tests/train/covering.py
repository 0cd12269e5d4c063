"""Short jobs that cover the choices of a recipe: every optimizer, schedule, averaging method and way to end.

A case is a row of a covering array: each optimizer meets each averaging method and each way to end, and so does each
schedule. All other fields are drawn by the case's own generator. What a job does not allow beside its optimizer is left
out or replaced, as the refusal says.
"""

import json
import random
from typing import Any, Final, NamedTuple, get_args

from core.errors import InvalidSpec
from core.recipe.averaging import AVERAGING
from core.recipe.catalog import component_classes
from core.recipe.parse import parse_job
from core.recipe.stopping import StopReason

STEPS: Final = 12
LR: Final = 0.05
OPTIMIZERS: Final[dict[str, dict[str, Any]]] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "rmsprop": {"momentum": 0.5, "centered": True},
    "adamw": {"amsgrad": True},
    "nadam": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "asgd": {"t0": 5.0},
    "lbfgs": {"max_iter": 3},
    "schedule_free_sgd": {"warmup_steps": 4},
    "pytorch_optimizer": {"optimizer": "soap", "options": {"precondition_frequency": 3}},
}
"""Options that make an optimizer use all the state that it has."""

SCHEDULES: Final[dict[str, dict[str, Any]]] = {
    "constant": {"warmup": 3},
    "cosine": {"warmup": 1},
    "cosine_restarts": {"T_0": 6, "cycle_decay": 0.7},
    "cyclic": {"step_size_up": 3, "base_lr": 0.03, "mode": "triangular2"},
    "exponential": {"gamma": 0.85, "every": 1},
    "inverse_sqrt": {"warmup": 2},
    "multistep": {"milestones": [4, 7], "gamma": 0.6},
    "one_cycle": {"div_factor": 1.4},
    "plateau": {"monitor": "val.loss", "patience": 1, "factor": 0.6, "threshold": 1e9, "threshold_mode": "abs"},
    "sequence": {"schedules": [{"name": "linear", "end_factor": 0.4}, {"name": "cosine"}], "milestones": [4]},
    "step": {"step_size": 4, "gamma": 0.6},
    "wsd": {"decay": 9},
}
"""Options that make a schedule change the rate within the run; the rest of them do so by default."""

SWA: Final[dict[str, Any]] = {"start": 6, "every": 2, "anneal": 2}
AVERAGES: Final[dict[str, dict[str, Any]]] = {
    "swa": SWA,
    "swag": {"samples": 2, "max_rank": 2},
    "ema": {"start": 3, "every": 2, "warmup": True},
    "snapshot": {"cycles": 3},
    "fge": {"start": 5, "cycle": 4},
    "checkpoints": {"every": 3, "members": 2},
}
"""Options that make an average begin within the run and collect several times."""

TOGETHER: Final[dict[str, Any]] = {
    "swa": {"start": 6, "cycle": 2, "swag": AVERAGES["swag"]},
    "ema": {"start": 3, "every": 2, "with_swa": True},
    "ensemble": {"method": "checkpoints", **AVERAGES["checkpoints"]},
}
"""All averages that one job can have."""

ENDINGS: Final[dict[StopReason, dict[str, Any]]] = {
    "completed": {},
    "early_stopping": {
        "early_stopping": {"patience": 2, "min_delta": 1e9, "start_from": 4},
        "evaluate": {"every": 3},  # at 6 for the first time, so that those at 9 and 12 are no better
        "steps": STEPS + 3,
    },
    "stop_lr": {"stop_lr": 0.68 * LR, "evaluate": {"every": 2}},
    "target": {"target": {"metric": "val.loss", "value": 1e9}, "evaluate": {"every": 9}},
    "time_limit": {"seconds": 9, "accumulate": 1, "sam": None},  # of a clock that counts gradients
    "cancelled": {},
    "non_finite": {
        "data": {"name": "diabetes", "standardize": False},
        "model": {"name": "mlp", "hidden": [6, 4], "activation": "leaky_relu"},
        "seed": 0,
        "batch_size": 40,
        "drop_last": False,
        "accumulate": 1,
        "sampling": "without_replacement",
    },
}
"""What makes a run end for this reason; who cancels, and data that end it, are the test's."""

PROBLEMS: Final[tuple[dict[str, Any], ...]] = (
    {
        "model": {"name": "mlp", "hidden": [6, 4], "batch_norm": True, "dropout": 0.2},
        "data": {"name": "iris", "validation": 0.2, "test": 0.4},
    },
    {
        "model": {"name": "mlp", "hidden": [4, 4], "activation": "tanh"},
        "data": {"name": "diabetes", "validation": 0.2, "test": 0.65},
    },
    {
        "model": {"name": "cnn", "channels": [2], "hidden": [6, 4], "batch_norm": True, "dropout": 0.2},
        "data": {"name": "gaussian_images", "size": 4, "classes": 3, "examples": 150, "test": 0.4},
    },
)
CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "batch_size": (13, "full"),  # 60 to 75 train examples: the last batch of an epoch is a short one
    "accumulate": (1, 2),
    "drop_last": (False, True),
    "sampling": ("without_replacement", "with_replacement"),
    "clip_grad": (None, {"norm": 0.5}, {"value": 0.1}),
    "sam": (None, {"interval": 2}, {"adaptive": True}),
    "no_decay": ([], ["bias"], ["bias", "norm"]),
    "label_smoothing": (0.0, 0.1),
    "log_every": (1, 3),
    "checkpoints": ({"every": 5}, {"every": 4, "keep_best": 1}),
    "early_stopping": (None, {"patience": 1000}),
}


REPLACED: Final[dict[str, Any]] = {"batch_size": "full", "sampling": "without_replacement", "label_smoothing": 0.0}
"""What takes the place of a refused field that cannot be left out."""


class Case(NamedTuple):
    """One row; each name is that of the catalog, or of the reason for which a run ends."""

    optimizer: str
    schedule: str
    averaging: str
    ending: StopReason

    def dice(self) -> random.Random:
        """The case's own, whatever other cases there are."""
        return random.Random("/".join(self))


def cases() -> list[Case]:
    """A Latin square of averaging methods and endings for each optimizer, with schedules in rotation."""
    schedules, averages = sorted(component_classes("schedules")), [*component_classes("averaging"), "together"]
    endings: tuple[StopReason, ...] = get_args(StopReason)
    return [
        Case(
            optimizer,
            schedules[(row + 3 * column) % len(schedules)],
            average,
            endings[(row + column) % len(endings)],
        )
        for row, optimizer in enumerate(sorted(component_classes("optimizers")))
        for column, average in enumerate(averages)
    ]


def fields_of(case: Case) -> dict[str, Any]:
    """A job that is accepted. Where `case` asks for too much, the optimizer has the last word."""
    dice = case.dice()
    drawn = {name: dice.choice(values) for name, values in CHOICES.items()}
    optimizer = {"name": case.optimizer, "lr": LR, **OPTIMIZERS.get(case.optimizer, {})}
    schedule = {"name": case.schedule, **SCHEDULES.get(case.schedule, {})}
    fields = {
        "steps": STEPS,
        "seed": dice.randrange(1000),
        "evaluate": {"every": 4},
        **dice.choice(PROBLEMS),
        **drawn,
        "optimizer": optimizer,
        "schedule": schedule,
        **_averaging(case.averaging),
        **ENDINGS[case.ending],
    }
    while pointer := refusal(fields):
        field = pointer.split("/")[1]
        assert fields[field] != REPLACED.get(field), f"{case} is refused at {pointer}"
        left = fields | {field: REPLACED.get(field)}
        fields = {name: value for name, value in left.items() if value is not None}
    return fields


def _averaging(name: str) -> dict[str, Any]:
    if name == "together":
        return TOGETHER
    (kind,) = (each for each in AVERAGING if each.name == name)
    document: dict[str, Any] = {**AVERAGES.get(name, {})}
    document |= {"method": name} if kind.field == "ensemble" else {}
    for field in reversed(kind.field.split(".")):
        document = {field: document}
    return {"swa": SWA | document["swa"]} if "swa" in document else document


def refusal(fields: dict[str, Any]) -> str | None:
    """The pointer of the first problem of a job, or None."""
    try:
        parse_job(json.dumps(fields).encode())
    except InvalidSpec as error:
        return error.errors[0].pointer
    return None
