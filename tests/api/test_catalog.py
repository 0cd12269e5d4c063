"""What can be asked for: the catalog, previews of schedules, and the pages that describe them."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.recipe.spec import JobSpec
from tests.support.specs import rate_of


def test_the_catalog_names_every_component(shared: TestClient) -> None:
    catalog = shared.get("/v1/catalog").json()
    assert {entry["name"] for entry in catalog["optimizers"]} >= {"sgd", "adam", "adamw", "rmsprop"}
    assert {entry["name"] for entry in catalog["schedules"]} >= {"constant", "step", "exponential", "cosine", "linear"}
    assert {entry["name"] for entry in catalog["averaging"]} >= {"swa"}
    assert {entry["name"] for entry in catalog["models"]} >= {"logistic", "mlp", "cnn"}
    assert {entry["name"] for entry in catalog["datasets"]} >= {"digits", "breast_cancer", "wine", "iris", "diabetes"}
    assert [entry["name"] for entry in catalog["losses"]] == ["cross_entropy", "mse", "function"]
    assert [entry["name"] for entry in catalog["metrics"]] == ["accuracy", "mae", "r2"]
    sgd = next(entry for entry in catalog["optimizers"] if entry["name"] == "sgd")
    assert sgd["defaults"]["momentum"] == 0
    assert sgd["parameters"]["properties"]["lr"]["exclusiveMinimum"] == 0
    average = next(entry for entry in catalog["analyses"] if entry["name"] == "average")
    assert (average["defaults"]["seed"], average["parameters"]["additionalProperties"]) == (0, False)
    for kind in ("optimizers", "schedules", "averaging", "models", "datasets", "losses", "metrics", "analyses"):
        answer = shared.get(f"/v1/catalog/{kind}").json()
        assert (answer["object"], answer["data"], answer["has_more"]) == ("list", catalog[kind], False)


def test_a_preview_shows_the_rates_that_training_will_use(shared: TestClient) -> None:
    """Linear from 1.0 down to 0 over 4 steps, by hand; one step an epoch, so that epochs and steps are the same."""
    request = {
        "schedule": {"name": "linear", "start_factor": 1.0, "end_factor": 0.0},
        "optimizer": {"name": "sgd", "lr": 0.8},
        "epochs": 4,
        "batch_size": "full",
    }
    preview = shared.post("/v1/schedules/preview", json=request).json()
    assert preview["total_steps"] == 4
    assert preview["steps"] == [0, 1, 2, 3]
    assert preview["lr"] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert preview["marks"] == [{"step": 4, "kind": "stop"}]


def test_a_preview_agrees_with_the_job(shared: TestClient) -> None:
    same = {
        "schedule": {"name": "cosine", "warmup": "1ep"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "swa": True,
        "epochs": 4,
        "batch_size": 10,
    }
    spec = JobSpec.model_validate({"model": {"name": "logistic"}, "data": {"name": "iris"}, **same}).resolved()
    preview = shared.post("/v1/schedules/preview", json=same | {"examples": spec.shape().split.train}).json()
    rate = rate_of(spec)
    assert preview["lr"] == [rate(step) for step in range(spec.shape().run.total_steps)]
    assert preview["marks"][0]["kind"] == "swa_start"


@pytest.mark.parametrize(
    ("averaging", "collected"),
    [
        ({"ensemble": {"method": "snapshot", "cycles": 3}}, [16, 30, 44]),
        ({"ensemble": {"method": "fge", "start": "20st", "cycle": 8}}, [24, 32, 40]),
        ({"ensemble": {"method": "checkpoints", "every": 20}, "swa": {"start": "33st"}}, [20, 33, 40, 44]),
        ({"swa": {"start": "33st", "cycle": 5}}, [38, 43]),
    ],
)
def test_a_preview_shows_what_averaging_does(
    shared: TestClient, averaging: dict[str, Any], collected: list[int]
) -> None:
    """44 steps in epochs of 11: what remains of 3 cycles goes to the first, the middles of cycles, ends of cycles."""
    same = {"optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 4, "batch_size": 10, **averaging}
    spec = JobSpec.model_validate({"model": {"name": "logistic"}, "data": {"name": "iris"}, **same}).resolved()
    preview = shared.post("/v1/schedules/preview", json=same | {"examples": 105}).json()
    assert preview["lr"] == [rate_of(spec)(step) for step in range(44)]
    assert [mark["step"] for mark in preview["marks"] if mark["kind"] == "collect"] == collected


def test_a_preview_ends_where_the_run_does(shared: TestClient) -> None:
    """Ten steps an epoch; at 0.1, 0.01 and 0.001 for two epochs each, the third of them is below 0.005."""
    request = {
        "schedule": {"name": "step", "step_size": "2ep"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "stop_lr": 0.005,
        "epochs": 9,
        "batch_size": 10,
        "examples": 100,
    }
    preview = shared.post("/v1/schedules/preview", json=request).json()
    assert (preview["total_steps"], preview["stop_reason"], len(preview["lr"])) == (90, "stop_lr", 40)
    assert preview["marks"] == [{"step": 40, "kind": "stop"}]
    answer = shared.post("/v1/schedules/preview", json=request | {"stop_lr": 1e-9})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/stop_lr")


def test_a_preview_of_plateau_takes_the_metrics_that_it_shall_hear(shared: TestClient) -> None:
    """One step an epoch: the second and the third evaluation are no better than the first."""
    request = {
        "schedule": {"name": "plateau", "patience": 2, "factor": 0.5},
        "optimizer": {"name": "sgd", "lr": 0.5},
        "metrics": [1.0, 1.0, 2.0],
        "epochs": 5,
        "batch_size": "full",
    }
    preview = shared.post("/v1/schedules/preview", json=request).json()
    assert preview["lr"] == [0.5, 0.5, 0.5, 0.25, 0.25]
    assert preview["marks"] == [{"step": 3, "kind": "reduction"}, {"step": 5, "kind": "stop"}]
    deaf = shared.post("/v1/schedules/preview", json=request | {"schedule": {"name": "cosine"}})
    assert (deaf.status_code, deaf.json()["errors"][0]["pointer"]) == (422, "/metrics")


def test_the_index_leads_everywhere(shared: TestClient) -> None:
    links = shared.get("/").json()["links"]
    assert {name: shared.get(path).status_code for name, path in links.items()} == dict.fromkeys(links, 200)


def test_the_docs_load_nothing_from_elsewhere(shared: TestClient) -> None:
    page = shared.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "://" not in page.text
    assert re.findall(r"<script(?![^>]*src=)|\son\w+=|<style", page.text) == [], "the policy forbids inline code"
    assert "script-src 'self';" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 4
    for path in loaded:
        answer = shared.get(path)
        assert (answer.status_code, len(answer.content) > 100) == (200, True), path
    assert "jsdelivr" not in shared.get("/docs/start.js").text
    assert b"SwaggerUIBundle" in shared.get("/docs/swagger-ui-bundle.js").content


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2f__init__.py", "core.py", "%2fetc%2fpasswd", "x"])
def test_the_docs_serve_no_other_file(shared: TestClient, name: str) -> None:
    assert shared.get(f"/docs/{name}").status_code == 404
