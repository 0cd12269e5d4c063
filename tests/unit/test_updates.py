"""What does not fit together around an optimizer: refused with the field, the reason and a way out."""

import json
from typing import Any

import pytest

from core.errors import InvalidSpec
from core.recipe.parse import parse_job, parse_preview
from core.recipe.preview import compute_preview
from core.recipe.spec import JobSpec
from tests.support.specs import warnings_of

BASE = {
    "model": {"name": "mlp", "hidden": [8, 8]},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd"},
    "epochs": 4,
}
FULL = {"batch_size": "full"}
RPROP = {"optimizer": {"name": "rprop"}, **FULL}
LBFGS = {"optimizer": {"name": "lbfgs"}, **FULL}
FREE = {"optimizer": {"name": "schedule_free_sgd"}}
FREE_ADAMW = {"optimizer": {"name": "schedule_free_adamw"}}
MUON = {"optimizer": {"name": "muon"}}


def other(name: str, **fields: Any) -> dict[str, Any]:
    return {"optimizer": {"name": "pytorch_optimizer", "optimizer": name, "lr": 1e-3, **fields}}


def parse(**fields: Any) -> JobSpec:
    return parse_job(json.dumps({**BASE, **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "pointer", "hint"),
    [
        ({**RPROP, "batch_size": 32}, "/batch_size", '"full"'),
        ({**LBFGS, "batch_size": 32}, "/batch_size", '"full"'),
        ({**LBFGS, "clip_grad": {"norm": 1.0}}, "/clip_grad", "leave it out"),
        ({**LBFGS, "sam": True}, "/sam", "leave it out"),
        ({**RPROP, "schedule": {"name": "cosine"}}, "/schedule", "leave it out"),
        ({**RPROP, "schedule": {"name": "constant", "warmup": "1ep"}}, "/schedule/warmup", "leave it out"),
        ({**RPROP, "swa": True}, "/swa", "leave it out"),
        ({**FREE, "schedule": {"name": "cosine"}}, "/schedule", "leave it out"),
        ({**FREE, "schedule": {"name": "constant", "warmup": "1ep"}}, "/schedule/warmup", "optimizer.warmup_steps"),
        ({**FREE, "swa": True}, "/swa", "leave it out"),
        ({**FREE_ADAMW, "schedule": {"name": "cosine"}}, "/schedule", "leave it out"),
        ({**FREE_ADAMW, "swa": True}, "/swa", "leave it out"),
        ({**FREE, "ema": True}, "/ema", "base weights"),
        ({**FREE, "ensemble": {"method": "snapshot"}}, "/ensemble/method", '"checkpoints"'),
        ({"optimizer": {"name": "asgd"}, "ema": True}, "/ema", "base weights"),
        ({**MUON, "model": {"name": "logistic"}}, "/optimizer/name", '"adamw"'),
        ({**MUON, "model": {"name": "mlp", "hidden": [8]}}, "/optimizer/name", '"hidden"'),
        ({"optimizer": {"name": "rprop", "step_sizes": [1.0, 0.5]}, **FULL}, "/optimizer/step_sizes", "swap"),
        ({"optimizer": {"name": "rprop", "etas": [0.5, 0.9]}, **FULL}, "/optimizer/etas/1", None),
        ({"optimizer": {"name": "schedule_free_sgd", "momentum": 0.0}}, "/optimizer/momentum", None),
        ({"optimizer": {"name": "adafactor", "d": 0.5}}, "/optimizer/d", None),
        (
            {"optimizer": {"name": "lbfgs", "line_search": "strong_wolfe"}, **FULL},
            "/optimizer/line_search",
            "search_fn",
        ),
        (
            {"optimizer": {"name": "muon", "adamw": {"weight_deca": 0.1}}},
            "/optimizer/adamw/weight_deca",
            "weight_decay",
        ),
        ({"sam": {"rho": 0.0}}, "/sam/rho", None),
        ({"sam": {"interval": 0}}, "/sam/interval", None),
        ({"sam": {"roh": 0.1}}, "/sam/roh", "rho"),
        (other("lionn"), "/optimizer/optimizer", '"lion"'),
        (other("adahessian"), "/optimizer/optimizer", "recipe.md"),
        (other("lion", options={"weight_deca": 0.1}), "/optimizer/options/weight_deca", '"weight_decay"'),
        (other("lion", options={"betas": 0.9}), "/optimizer/options/betas", "[0.9, 0.99]"),
        (other("lion", options={"betas": [0.9, "x"]}), "/optimizer/options/betas", "[0.9, 0.99]"),
        (other("lion", options={"weight_decouple": 1}), "/optimizer/options/weight_decouple", "true"),
        (other("soap", options={"precondition_frequency": 2.5}), "/optimizer/options/precondition_frequency", "10"),
        (other("lion", options={"weight_decay": 1e300}), "/optimizer/options/weight_decay", "0.0"),
        (other("mars", options={"mars_type": "adam"}), "/optimizer/options/mars_type", '"adamw"'),
        ({"optimizer": {"name": "pytorch_optimizer", "optimizer": "lion"}}, "/optimizer/lr", None),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_a_way_out(fields: dict[str, Any], pointer: str, hint: str | None) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse(**fields)
    problems = {each.pointer: each for each in refused.value.errors}
    assert list(problems) == [pointer]
    assert hint is None or hint in (problems[pointer].hint or "")


@pytest.mark.parametrize(
    "fields",
    [
        {**RPROP, "sam": True},
        {**LBFGS, "schedule": {"name": "cosine"}, "swa": True},
        {**FREE, "sam": True, "clip_grad": {"norm": 1.0}, "ensemble": {"method": "checkpoints"}},
        {**MUON, "sam": {"adaptive": True}, "schedule": {"name": "cosine", "warmup": "1ep"}, "swa": True},
        {"optimizer": {"name": "asgd"}, "schedule": {"name": "cosine"}, "swa": True},
        {"model": {"name": "logistic"}, **LBFGS},
        {"model": {"name": "cnn", "hidden": [8]}, **MUON},
        other("mars", options={"mars_type": "lion", "betas": [0.9, 0.99]}),
    ],
    ids=str,
)
def test_what_fits_is_accepted_and_resolves_once_and_for_all(fields: dict[str, Any]) -> None:
    spec = parse(**fields).resolved()
    assert parse_job(json.dumps(spec.dump()).encode()).resolved() == spec


def test_switches_and_defaults_are_written_out() -> None:
    assert parse(sam=True).resolved().dump()["sam"] == {"rho": 0.05, "adaptive": False, "eta": 0.01, "interval": 1}
    assert parse(sam=False).sam is None
    assert parse(**LBFGS).resolved().dump()["optimizer"]["max_eval"] == 25
    options = parse(**other("lion", options={"weight_decay": 0.1})).resolved().dump()["optimizer"]["options"]
    assert options == {"betas": [0.9, 0.99], "weight_decay": 0.1, "weight_decouple": True, "fixed_decay": False}
    assert "growth_rate" not in parse(**other("prodigy")).resolved().dump()["optimizer"]["options"]  # infinity


def test_the_preview_shows_the_warm_up_of_a_schedule_free_run() -> None:
    optimizer = {"name": "schedule_free_adamw", "lr": 0.04, "warmup_steps": 4}
    request = parse_preview(json.dumps({"optimizer": optimizer, "steps": 6}).encode())
    with pytest.raises(InvalidSpec) as caught:
        parse_preview(json.dumps({"optimizer": optimizer, "steps": 6, "schedule": {"name": "cosine"}}).encode())
    assert [each.pointer for each in caught.value.errors] == ["/schedule"]
    assert compute_preview(request).lr == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.04, 0.04])


def test_warnings_of_what_is_probably_not_meant() -> None:
    def codes(**fields: Any) -> set[str]:
        return {each.code for each in warnings_of(parse(**fields))}

    dropout = {"model": {"name": "mlp", "hidden": [8], "dropout": 0.1}}
    assert "compares_noise" in codes(**LBFGS, **dropout)
    assert "compares_noise" not in codes(**dropout)
    assert "no_decay_without_decay" in codes(**LBFGS, no_decay=["bias"])
    assert "no_decay_without_decay" in codes(**other("lion"), no_decay=["bias"])
    decayed = other("lion", options={"weight_decay": 0.1})
    muon = {"optimizer": {"name": "muon", "weight_decay": 0.0}}
    assert not any("no_decay_without_decay" in codes(**each, no_decay=["bias"]) for each in (decayed, muon, MUON))
