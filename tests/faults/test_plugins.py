"""A plug-in in a real service: it trains, resumes exact, and its absence is said and harms nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.plugins import EXAMPLE, install
from tests.support.service import Service, until

pytestmark = pytest.mark.slow
Serve = Callable[[str, Broker | None], Service]
JOB = {
    "model": {"name": "rms_mlp", "hidden": [16]},
    "data": {"name": "digits"},
    "optimizer": {"name": "lion", "lr": 0.001, "weight_decay": 0.1},
    "loss": {"name": "poly1", "epsilon": 1.0},
    "metrics": ["accuracy", "confident_accuracy"],
    "checkpoints": {"monitor": "val.confident_accuracy", "keep_best": 1},
    "epochs": 300,
    "log_every": 50,
}
PLAIN = {"model": {"name": "mlp"}, "data": {"name": "digits"}, "optimizer": {"name": "sgd"}, "epochs": 30}
NAMED = "basin-example-lion 0.1.0"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(EXAMPLE, tmp_path_factory.mktemp("plugin"))


def test_a_job_with_a_plugin_from_its_start_to_its_end(serve: Serve, sqlite_url: str, plugin: Path) -> None:
    service = serve(sqlite_url, None)
    service.packages = (plugin,)
    service.start_api()
    _what_it_adds(service)
    service.packages = ()
    service.start_worker()
    job_id, plain = service.submit(JOB), service.submit(PLAIN)
    judged = service.submit({**PLAIN, "metrics": ["confident_accuracy"]})
    assert service.ended(plain)["status"] == "succeeded"  # it stands behind the other, which no worker can take
    waiting = service.job(job_id)
    assert (waiting["status"], waiting["attempt"]) == ("queued", 0)
    reason = f"No worker has the plug-in {NAMED}; install it where workers run."
    assert {"code": "no_plugin", "pointer": "", "message": reason} in waiting["warnings"]
    places = {place["id"]: place["reason"] for place in service.http.get("/v1/queue").json()["data"]}
    assert places == {each: {"code": "no_plugin", "message": reason} for each in (job_id, judged)}
    assert (waiting["loss"], waiting["metrics"][1]) == (
        {"name": "poly1", "epsilon": 1.0},
        {"name": "confident_accuracy", "above": 0.9},
    )

    service.packages = (plugin,)
    service.start_worker()
    service.when_at(job_id, 40)
    assert service.http.post(f"/v1/jobs/{job_id}/pause").status_code == 202
    paused = service.when(job_id, lambda job: job["status"] == "paused")
    assert 0 < paused["progress"]["step"] < paused["progress"]["steps"]
    whole = service.submit(JOB)
    service.http.post(f"/v1/jobs/{job_id}/resume")
    ended, undisturbed = service.ended(job_id), service.ended(whole)
    assert (ended["status"], ended["resume"]["fidelity"]) == ("succeeded", "exact"), ended
    assert undisturbed["status"] == "succeeded"
    assert ended["results"] == undisturbed["results"]
    measured = ended["results"]["base"]["test"]
    assert measured["accuracy"] > 0.8
    assert 0.5 < measured["confident_accuracy"] < measured["accuracy"]
    assert service.ended(judged)["status"] == "succeeded"
    assert ended["environment"]["versions"]["basin-example-lion"].startswith("0.1.0 sha256:")
    weights = [service.checkpoints(each)[-1]["sha256"] for each in (job_id, whole)]
    assert weights[0] == weights[1]
    _without_the_plugin(service, job_id)


def _what_it_adds(service: Service) -> None:
    """The catalog, readiness, OpenAPI and the hints of refusals know its components."""
    offered = service.http.get("/v1/catalog").json()
    assert "lion" in {each["name"] for each in offered["optimizers"]}
    assert (offered["losses"][-1]["name"], offered["metrics"][-1]["name"]) == ("poly1", "confident_accuracy")
    name, _, version = NAMED.partition(" ")
    assert service.http.get("/readyz").json()["plugins"] == {
        "joined": [{"name": name, "version": version}],
        "refused": [],
    }
    document = service.http.get("/openapi.json").json()
    assert "Lion" in document["components"]["schemas"]
    refused = service.http.post("/v1/jobs", json={**JOB, "optimizer": {"name": "lion", "bets": [0.9, 0.9]}})
    assert refused.json()["errors"][0] == {
        "pointer": "/optimizer/bets",
        "message": "unknown field",
        "hint": 'did you mean "betas"?',
    }


def _without_the_plugin(service: Service, job_id: str) -> None:
    """An api that has it no more shows the job, says why it cannot be tried again, and lets it be deleted."""
    assert service.api is not None
    service.api.stop()
    service.packages = ()
    service.start_api()
    shown = service.job(job_id)
    assert (shown["status"], shown["optimizer"]["name"]) == ("succeeded", "lion")
    assert job_id in {each["id"] for each in service.http.get("/v1/jobs").json()["data"]}
    answer = service.http.post("/v1/jobs", json=JOB)
    assert answer.status_code == 422
    forked = service.http.post(f"/v1/jobs/{job_id}/fork", json={"changes": {"epochs": 310}})
    assert forked.status_code == 409
    assert NAMED in forked.json()["detail"]
    assert service.http.delete(f"/v1/jobs/{job_id}").status_code in {200, 202, 204}
    until("it is gone", lambda: service.http.get(f"/v1/jobs/{job_id}").status_code == 404)
