"""A job that was accepted before a rule became stricter is trained as it was accepted."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from core.db.tables import job
from core.errors import InvalidSpec
from core.recipe.parse import parse_job
from tests.support.broker import Broker
from tests.support.service import Service

SPEC: dict[str, Any] = {
    "model": {"name": "logistic"},
    "data": {"name": "iris"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "epochs": 2,
}
# Beyond a bound, against a rule within a component, and against one between fields.
OLD: dict[str, Any] = {
    "checkpoints": {"every": "1000st", "keep_last": 2, "keep_best": 10**6},
    "ema": {"decay": 0.9, "half_life": "1ep"},
    "early_stopping": {"monitor": "val.loss", "patience": 3, "start_from": "99ep"},
}


def test_a_worker_trains_what_the_door_would_refuse_today(
    serve: Callable[[str, Broker | None], Service], sqlite_url: str
) -> None:
    """And an analysis of it is done. A worker is another process: nothing is patched, the row is an old one."""
    for name, value in OLD.items():
        with pytest.raises(InvalidSpec):
            parse_job(json.dumps(SPEC | {name: value}).encode())
    service = serve(sqlite_url, None)
    service.start_api()
    job_id = service.submit(SPEC)
    with service.database() as db, db.write() as connection:
        row = json.loads(connection.execute(select(job.c.spec).where(job.c.id == job_id)).scalar_one())
        connection.execute(update(job).where(job.c.id == job_id).values(spec=json.dumps(row | OLD)))
    service.heal()
    ended = service.ended(job_id)
    assert (ended["status"], ended["error"]) == ("succeeded", None)
    assert ended["progress"]["step"] == ended["progress"]["steps"] == 8
    assert {name: ended[name] for name in OLD} == OLD
    assert sorted(ended["results"]) == ["base", "ema"]
    analysis = service.http.post("/v1/analyses", json={"kind": "sharpness", "job": job_id}).json()["id"]
    service.when(job_id, lambda _: service.http.get(f"/v1/analyses/{analysis}").json()["status"] == "succeeded")
