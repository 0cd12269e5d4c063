"""From a file to a trained job, with a real api and a real worker."""

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from core.store.location import StoreLocation
from core.store.s3_client import TUNING, make_client
from tests.support.broker import Broker
from tests.support.service import Service, until

Serve = Callable[[str, Broker | None], Service]


def arrays_file(rows: int) -> bytes:
    """Two classes that the first of two numbers tells apart."""
    dice = np.random.default_rng(0)
    targets = np.arange(rows, dtype=np.int64) % 2
    inputs = dice.normal(size=(rows, 2)).astype(np.float32)
    inputs[:, 0] += 10.0 * targets
    file = io.BytesIO()
    np.savez(file, inputs=inputs, targets=targets)
    return file.getvalue()


def test_from_a_file_to_a_trained_job(brokerless_service: Service) -> None:
    service = brokerless_service
    service.heal()
    octets = {"Content-Type": "application/octet-stream"}
    answer = service.http.post("/v1/datasets?name=clouds", content=arrays_file(300), headers=octets)
    assert answer.status_code == 202, answer.text
    path = answer.json()["links"]["self"]

    def ended() -> dict[str, object] | None:
        found = service.http.get(path).json()
        return None if found["status"] in {"queued", "preparing"} else dict(found)

    found = until("the dataset is prepared", ended)
    assert (found["status"], found["kind"], found["examples"]) == ("ready", "arrays", 300), (
        found["error"],
        found["errors"],
    )
    progress = found["progress"]
    assert isinstance(progress, dict)
    assert progress["fraction"] == 1.0
    spec = {
        "model": {"name": "mlp", "hidden": [8]},
        "data": {"name": "dataset", "dataset": "clouds", "validation": 0.2, "test": 0.2},
        "optimizer": {"name": "adam", "lr": 0.05},
        "epochs": 20,
    }
    job = service.ended(service.submit(spec))
    assert job["status"] == "succeeded", job["error"]
    assert job["results"]["base"]["test"]["accuracy"] > 0.95
    assert service.http.delete(path).status_code == 204
    forked = service.http.post(f"/v1/jobs/{job['id']}/fork", json={"changes": {"epochs": 30}})
    assert (forked.status_code, forked.json()["code"]) == (409, "data_gone")


@pytest.mark.slow
def test_a_folder_of_a_bucket_becomes_a_dataset(serve: Serve, sqlite_url: str, bucket: StoreLocation) -> None:
    """By reference: the api checks the profile, the worker reads the objects."""
    import obstore

    client = make_client(bucket, TUNING, prefix=None)
    for number in range(12):
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), (200 * (number % 2), 10, 10)).save(picture, "PNG")
        obstore.put(client, f"{bucket.bucket.key_prefix}cars/{'ab'[number % 2]}/{number}.png", picture.getvalue())
    profile = {
        "url": f"s3://{bucket.bucket.name}/{bucket.bucket.prefix}",
        "endpoint": bucket.endpoint,
        "access_key_id": bucket.key_id,
        "secret_access_key": bucket.secret,
    }
    service = serve(sqlite_url, None)
    service.environment |= {"BASIN_S3_PROFILES": json.dumps({"lake": profile})}
    service.start_api()
    service.start_worker()
    source = {"kind": "s3", "profile": "lake", "url": f"{profile['url']}/cars/"}
    refused = service.http.post("/v1/datasets", json={"name": "x", "source": source | {"profile": "laek"}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/source/profile")
    made = service.http.post("/v1/datasets", json={"name": "cars", "source": source})
    assert made.status_code == 201, made.text

    def ended() -> dict[str, object] | None:
        found = service.http.get(made.json()["links"]["self"]).json()
        return None if found["status"] in {"queued", "preparing"} else dict(found)

    found = until("the dataset is prepared", ended)
    assert (found["status"], found["kind"], found["examples"]) == ("ready", "images", 12), found
