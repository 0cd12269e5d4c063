"""Analyses through the whole service, on both kinds of database: every kind, and what disturbs a long one."""

import io
import re
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from basin.analysis_summary import KINDS, analysis_headline
from basin.shapes import Analysis
from core.jobs.ledger.check import Ledger
from core.recipe.analyses import AnalysisSpec, AnyAnalysis, ResultsSpec, analysis_classes
from tests.support.service import TERMINAL, Job, Service, until

SMALL: Job = {
    "model": {"name": "mlp", "hidden": [16]},
    "data": {"name": "digits", "validation": 0.1, "test": 0.2},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "checkpoints": {"every": "20st", "keep_last": 4},
    "epochs": 2,
}
WIDE: Job = SMALL | {"model": {"name": "mlp", "hidden": [128, 128]}}
OPTIONS: dict[str, Job] = {
    "landscape": {"steps": 5, "examples": 100, "splits": ["train", "test"]},
    "trajectory": {"steps": 5, "examples": 100},
    "interpolation": {"steps": 5, "examples": 100},
    "connect": {"epochs": 1, "points": 5, "examples": 100},
    "sharpness": {"examples": 100, "measures": ["gradient_norm", "filter_noise", "eigenvalues", "trace"]},
    "critical_point": {"examples": 100},
    "lr_range": {"steps": 30},
    "gradient_noise": {"examples": 200},
}
Pair = tuple[str, str]


class Analyses:
    """What is asked of the service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def ask(self, **fields: Any) -> str:
        headers = {"Idempotency-Key": secrets.token_hex(8)}  # as every client sends
        answer = self.service.http.post("/v1/analyses", json=fields, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def get(self, analysis_id: str) -> Job:
        return dict(self.service.http.get(f"/v1/analyses/{analysis_id}").json())

    def when(self, analysis_id: str, holds: Callable[[Job], object]) -> Job:
        def look() -> Job | None:
            found = self.get(analysis_id)
            return found if holds(found) else None

        return until(f"analysis {analysis_id}", look, 120)

    def ended(self, analysis_id: str) -> Job:
        return self.when(analysis_id, lambda found: found["status"] in TERMINAL)

    def halfway(self, analysis_id: str) -> Job:
        """Somewhere between its first tile and its last."""
        found = self.when(analysis_id, lambda one: one["progress"]["step"] > 2 or one["status"] in TERMINAL)
        assert found["status"] == "running", found
        return found

    def tell(self, analysis_id: str, verb: str) -> None:
        assert self.service.http.post(f"/v1/analyses/{analysis_id}/{verb}").status_code == 202

    def arrays(self, analysis_id: str) -> dict[str, Any]:
        content = self.service.http.get(f"/v1/analyses/{analysis_id}/content").content
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


@pytest.fixture(
    params=["lasting_service", pytest.param("lasting_postgresql_service", marks=pytest.mark.slow)], scope="module"
)
def lasting(request: pytest.FixtureRequest) -> tuple[Analyses, Pair, str]:
    """A service of each kind with two small jobs and a wide one that have ended."""
    service: Service = request.getfixturevalue(request.param)
    service.heal()
    jobs = [service.submit(spec) for spec in (SMALL, SMALL | {"seed": 1}, WIDE)]
    assert {service.ended(job_id)["status"] for job_id in jobs} == {"succeeded"}
    return Analyses(service), (jobs[0], jobs[1]), jobs[2]


@pytest.fixture
def analyses(lasting: tuple[Analyses, Pair, str]) -> Analyses:
    lasting[0].service.heal()
    return lasting[0]


@pytest.fixture
def pair(lasting: tuple[Analyses, Pair, str]) -> Pair:
    return lasting[1]


@pytest.fixture
def long(lasting: tuple[Analyses, Pair, str]) -> Job:
    """A surface that takes seconds."""
    return {"kind": "landscape", "job": lasting[2], "steps": 41, "seed": 7}


@pytest.mark.parametrize("kind", sorted(analysis_classes()))
def test_every_kind_gives_numbers_arrays_and_pictures(analyses: Analyses, pair: Pair, kind: str) -> None:
    where = given(analyses, pair, analysis_classes()[kind])
    found = analyses.ended(analyses.ask(kind=kind, **where, **OPTIONS.get(kind, {})))
    assert (found["status"], found["stop_reason"], found["error"]) == ("succeeded", "completed", None)
    assert found["progress"]["step"] == found["progress"]["steps"]
    assert found["results"]["partial"] is False
    told = list(KINDS[kind](found["results"]))
    assert told == analysis_headline(Analysis.read(found))[: len(told)]
    assert analyses.arrays(found["id"])
    assert {name.rpartition(".")[2] for name in found["pictures"]} == {"svg", "png"}
    for url in found["pictures"].values():
        picture = analyses.service.http.get(url).content
        assert picture.startswith((b"<?xml", b"\x89PNG"))


def given(analyses: Analyses, pair: Pair, kind: type[AnyAnalysis]) -> Job:
    """What it can look at."""
    if issubclass(kind, ResultsSpec):
        fields: Job = {"kind": "landscape", "job": pair[0], "dimensions": 1, **OPTIONS["landscape"]}
        parts = [analyses.ask(**fields, part={"number": number, "of": 2}) for number in (1, 2)]
        assert {analyses.ended(each)["status"] for each in parts} == {"succeeded"}
        return {"analyses": parts}
    several = issubclass(kind, AnalysisSpec) and kind.fewest > 1
    return {"checkpoints": [{"job": job_id} for job_id in pair]} if several else {"job": pair[0]}


def test_a_surface_is_the_same_whatever_happened_to_it(analyses: Analyses, long: Job) -> None:
    """Paused, then its runner killed, then its worker stopped; in the end the bits of an undisturbed one."""
    truth = analyses.ask(**long)
    assert analyses.ended(truth)["status"] == "succeeded"
    disturbed = analyses.ask(**long)
    analyses.halfway(disturbed)
    analyses.tell(disturbed, "pause")
    there = analyses.when(disturbed, lambda found: found["status"] == "paused")["progress"]["step"]
    analyses.tell(disturbed, "resume")
    analyses.when(disturbed, lambda found: found["attempt"] == 2 and found["progress"]["step"] > there)
    (runner,) = analyses.service.worker.runners()
    runner.kill()
    analyses.when(disturbed, lambda found: found["attempt"] == 3)
    found = analyses.ended(disturbed)
    assert (found["status"], found["resume"]["fidelity"]) == ("succeeded", "exact")
    assert found["results"] == analyses.get(truth)["results"]
    began = [int(step) for step in re.findall(r"from step (\d+)", str(found["timeline"]))]
    assert len(began) == 2
    assert began[0] == there <= began[1]
    expected, seen = analyses.arrays(truth), analyses.arrays(disturbed)
    assert expected.keys() == seen.keys()
    assert all(expected[name].tobytes() == seen[name].tobytes() for name in expected)
    with analyses.service.database() as db:
        assert list(Ledger(db, None).iter_findings()) == []


def test_a_cancelled_surface_keeps_what_it_has(analyses: Analyses, long: Job) -> None:
    cancelled = analyses.ask(**long)
    analyses.halfway(cancelled)
    analyses.tell(cancelled, "cancel")
    found = analyses.ended(cancelled)
    assert (found["status"], found["stop_reason"], found["results"]["partial"]) == ("cancelled", "cancelled", True)
    surface = next(each for name, each in analyses.arrays(cancelled).items() if each.ndim >= 2 and each.shape[-1] == 41)
    computed = np.isfinite(surface)
    assert 0 < computed.sum() < computed.size
    assert found["pictures"]
