"""Datasets over HTTP: announced, sent in one request, read, corrected, deleted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from api.dependencies import Service
from core.jobs.datasets import links
from core.jobs.datasets.prepare import claim_version
from core.jobs.datasets.use import find_dataset_manifest
from core.settings import Settings
from core.store.base import StoreTransient
from core.store.location import StoreLocation
from tests.api.conftest import HERE, service_of, settings_for, started
from tests.support.s3 import in_bucket
from tests.support.uploads import CSV, digest, fail, manifest_of, prepare, refuse, stored_content

OCTETS = {"Content-Type": "application/octet-stream"}
Json = dict[str, Any]


def created(client: TestClient, **changes: Any) -> Json:
    answer = client.post("/v1/datasets", json={"name": "penguins", "bytes": len(CSV)} | changes)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/datasets/{answer.json()['id']}"
    return dict(answer.json())


def sent(client: TestClient, content: bytes = CSV, **changes: Any) -> str:
    """The id of a dataset all of whose bytes have arrived."""
    found = created(client, bytes=len(content), **changes)
    answer = client.put(f"/v1/datasets/{found['id']}/content", content=content)
    assert (answer.status_code, answer.json()["status"]) == (202, "queued"), answer.text
    return str(found["id"])


def read(client: TestClient, dataset_id: str) -> Json:
    answer = client.get(f"/v1/datasets/{dataset_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_from_announcement_to_rows(client: TestClient, service: Service) -> None:
    found = created(client, filename="penguins.csv", sha256=digest(CSV))
    assert (found["status"], found["upload"]["offset"], found["upload"]["bytes"]) == ("uploading", 0, len(CSV))
    path = found["links"]["self"]
    answer = client.put(f"{path}/content", content=CSV)
    assert (answer.status_code, answer.json()["status"], answer.json()["upload"]) == (202, "queued", None)
    assert service.hints.heard == ["light"]  # type: ignore[attr-defined]
    assert stored_content(service.db, service.store, found["id"]) == CSV
    manifest = prepare(service.db, service.store, found["id"])
    ready = read(client, found["id"])
    assert (ready["status"], ready["version"], ready["format"]) == ("ready", f"sha256:{manifest.version()}", "csv")
    assert (ready["kind"], ready["examples"], ready["bytes"]) == ("table", 2, len(CSV))
    assert ready["confined"] == {"landlock": 7}
    species, bill = ready["columns"]
    assert (species["kind"], species["classes"], species["categories"]) == ("category", 2, {"Adelie": 1, "Gentoo": 1})
    assert (bill["min"], bill["max"], bill["mean"], bill.get("classes")) == (39.1, 47.5, 43.3, None)
    rows = client.get(f"{path}/rows?limit=1").json()
    assert (rows["data"], rows["examples"]) == ([{"species": "Adelie", "bill": 39.1}], 2)
    assert client.get(f"{path}/rows?limit=21").status_code == 422
    events = client.get(f"{path}/events").json()["data"]
    assert [event["data"]["status"] for event in events if event["type"] == "status"] == [
        "queued",
        "running",
        "succeeded",
    ]


def test_the_short_way_is_one_request(client: TestClient, service: Service) -> None:
    answer = client.post("/v1/datasets?name=penguins&format=csv", content=CSV, headers=OCTETS)
    assert (answer.status_code, answer.json()["status"]) == (202, "queued"), answer.text
    assert stored_content(service.db, service.store, answer.json()["id"]) == CSV
    chunked = client.post("/v1/datasets?name=penguins", content=iter([CSV[:5], CSV[5:]]), headers=OCTETS)
    assert (chunked.status_code, chunked.json()["bytes"]) == (202, len(CSV)), chunked.text
    assert client.post("/v1/datasets", content=CSV, headers=OCTETS).status_code == 422
    assert client.post("/v1/datasets?name=x", content=b"", headers=OCTETS).json()["code"] == "wrong_content"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_cannot_make_a_dataset(light: TestClient, kind: str) -> None:
    answer = light.post("/v1/datasets?name=x", content=CSV, headers={"Content-Type": kind})
    assert answer.status_code == 415
    path = created(light)["links"]["content"]
    patched = light.patch(path, content=CSV, headers={"Content-Type": kind, "Upload-Offset": "0"})
    assert patched.status_code == 415
    assert light.put(path, content=CSV, headers={"Content-Type": kind}).status_code == 202


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "", "bytes": 1}, "/name"),
        ({"name": "ds_01hzzzzzzzzzzzzzzzzzzzzzzz", "bytes": 1}, "/name"),
        ({"name": "x", "bytes": 0}, "/bytes"),
        ({"name": "x", "bytes": 1, "sha256": "ABC"}, "/sha256"),
        ({"name": "x", "bytes": 1, "format": "xlsx"}, "/format"),
        ({"name": "x", "bytes": 1, "options": {"delimeter": ","}}, "/options/delimeter"),
        ({"name": "x", "source": {"kind": "folder", "path": "x"}}, "/source"),
        ({"name": "x", "bytes": 1, "url": "http://example.org"}, "/url"),
    ],
)
def test_a_bad_announcement_names_its_field(shared: TestClient, body: Json, pointer: str) -> None:
    answer = shared.post("/v1/datasets", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text


def test_what_was_announced_must_be_sent(client: TestClient, service: Service) -> None:
    """Shorter, longer, other bytes: each is said, and the upload can be repeated."""
    found = created(client, sha256=digest(CSV))
    path = found["links"]["content"]
    for content in (CSV[:-1], CSV + b"x", iter([CSV[:-1]]), CSV[:-1] + b"x"):
        answer = client.put(path, content=content)
        assert (answer.status_code, answer.json()["code"]) == (422, "wrong_content"), answer.text
    assert client.put(path, content=iter([CSV, b"x"])).status_code == 413
    assert read(client, found["id"])["upload"]["offset"] == 0
    assert client.put(path, content=CSV).status_code == 202
    again = client.put(path, content=CSV)
    assert (again.status_code, again.json()["current_status"]) == (409, "queued")
    assert stored_content(service.db, service.store, found["id"]) == CSV


def test_known_bytes_are_not_sent_again(client: TestClient, service: Service) -> None:
    first = sent(client, sha256=digest(CSV))
    prepare(service.db, service.store, first)
    same = client.post("/v1/datasets", json={"name": "penguins", "bytes": len(CSV), "sha256": digest(CSV)})
    assert (same.status_code, same.json()["id"], same.json()["status"]) == (200, first, "ready")
    other = created(client, name="birds", sha256=digest(CSV))
    assert (other["status"], other["version"]) == ("ready", read(client, first)["version"])
    assert find_dataset_manifest(service.db, "default", "birds")[0] == other["id"]
    anew = created(client, sha256=digest(CSV), options={"delimiter": ";"})
    assert anew["status"] == "uploading"
    assert created(client, sha256=digest(CSV), format="csv")["status"] == "uploading"


def test_a_name_points_at_its_newest_ready_dataset(client: TestClient, service: Service) -> None:
    first = sent(client)
    prepare(service.db, service.store, first)
    second = sent(client, CSV + b"Adelie,40.0\n")
    assert find_dataset_manifest(service.db, "default", "penguins")[0] == first
    prepare(service.db, service.store, second)
    assert find_dataset_manifest(service.db, "default", "penguins")[0] == second
    back = client.post("/v1/datasets", json={"name": "penguins", "bytes": len(CSV), "sha256": digest(CSV)}).json()
    assert back["status"] == "ready"
    assert back["id"] not in {first, second}
    assert find_dataset_manifest(service.db, "default", "penguins")[0] == back["id"]
    assert client.delete(f"/v1/datasets/{back['id']}").status_code == 204
    assert find_dataset_manifest(service.db, "default", "penguins")[0] == second


def test_an_idempotency_key_makes_one(client: TestClient) -> None:
    once = {"Idempotency-Key": "once"}
    body = {"name": "penguins", "bytes": len(CSV)}
    first = client.post("/v1/datasets", json=body, headers=once)
    again = client.post("/v1/datasets", json=body, headers=once)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert client.post("/v1/datasets", json=body | {"bytes": 1}, headers=once).status_code == 422
    short = [
        client.post("/v1/datasets?name=a", content=CSV, headers=OCTETS | {"Idempotency-Key": "twice"}) for _ in range(2)
    ]
    assert [answer.status_code for answer in short] == [202, 200]
    assert short[0].json()["id"] == short[1].json()["id"]


def test_a_short_upload_that_broke_off_is_repeated_with_its_key(client: TestClient, service: Service) -> None:
    once = OCTETS | {"Idempotency-Key": "once"}
    whole = service.store.put_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(service.store), "put_bytes", lambda *_: (_ for _ in ()).throw(StoreTransient("away")))
        assert client.post("/v1/datasets?name=a", content=CSV, headers=once).status_code == 503
    assert service.store.put_bytes == whole
    again = client.post("/v1/datasets?name=a", content=CSV, headers=once)
    assert (again.status_code, again.json()["status"]) == (202, "queued"), again.text
    assert [one["id"] for one in client.get("/v1/datasets").json()["data"]] == [again.json()["id"]]


def test_the_list_is_filtered_and_paged(client: TestClient, service: Service) -> None:
    ready = sent(client, name="Birds")
    prepare(service.db, service.store, ready)
    queued, uploading = sent(client), created(client)["id"]

    def listed(query: str) -> list[str]:
        answer = client.get(f"/v1/datasets?{query}")
        assert answer.status_code == 200, answer.text
        return [one["id"] for one in answer.json()["data"]]

    assert listed("") == [uploading, queued, ready]
    assert (listed("status=queued"), listed("status=ready&status=uploading")) == ([queued], [uploading, ready])
    assert (listed("q=bird"), listed("name=penguins"), listed("kind=table")) == ([ready], [uploading, queued], [ready])
    page = client.get("/v1/datasets?limit=2").json()
    assert (page["has_more"], page["last_id"]) == (True, queued)
    assert listed(f"after={queued}") == [ready]
    assert client.get("/v1/datasets?statu=ready").status_code == 422


def test_a_refused_file_says_why(client: TestClient, service: Service) -> None:
    found = sent(client)
    problem = {"file": None, "row": 3, "column": "bill", "code": "not_a_number", "detail": "x" * 1000}
    refuse(service.db, found, [problem] * 300)
    refused = read(client, found)
    assert (refused["status"], len(refused["errors"])) == ("refused", 100)
    assert refused["errors"][0] == problem | {"detail": "x" * 300}
    again = client.post(f"/v1/datasets/{found}/prepare")
    assert (again.status_code, again.json()["current_status"]) == (409, "refused")
    fixed = client.put(f"/v1/datasets/{found}/schema", json={"columns": {"bill": {"kind": "text"}}})
    assert (fixed.status_code, fixed.json()["status"], fixed.json()["name"]) == (201, "queued", "penguins")
    assert fixed.json()["options"] == {"columns": {"bill": {"kind": "text"}}}
    assert stored_content(service.db, service.store, fixed.json()["id"]) == CSV
    more = client.put(f"/v1/datasets/{fixed.json()['id']}/schema", json={"format": "csv", "delimiter": ","})
    assert more.json()["options"] == {"columns": {"bill": {"kind": "text"}}, "delimiter": ","}


def test_what_failed_is_prepared_again(client: TestClient, service: Service) -> None:
    found = sent(client)
    fail(service.db, found)
    assert (read(client, found)["status"], read(client, found)["error"]["code"]) == ("failed", "engine_error")
    for _ in range(2):
        again = client.post(f"/v1/datasets/{found}/prepare")
        assert (again.status_code, again.json()["status"], again.json()["error"]) == (202, "queued", None)
    prepare(service.db, service.store, found)
    assert read(client, found)["status"] == "ready"


def test_a_preparation_is_cancelled_and_made_again(client: TestClient, service: Service) -> None:
    found = sent(client)
    for _ in range(2):
        answer = client.post(f"/v1/datasets/{found}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled"), answer.text
    assert client.post(f"/v1/datasets/{found}/prepare").json()["status"] == "queued"
    prepare(service.db, service.store, found)
    assert client.post(f"/v1/datasets/{found}/cancel").status_code == 409


def test_a_deleted_dataset_is_gone_at_once(client: TestClient, service: Service) -> None:
    found = sent(client)
    assert client.delete(f"/v1/datasets/{found}").status_code == 204
    for path in ("", "/rows", "/events", "/content"):
        assert client.get(f"/v1/datasets/{found}{path}").status_code == 404
    assert client.get("/v1/datasets").json()["data"] == []
    assert client.put(f"/v1/datasets/{found}/content", content=CSV).status_code == 404


def test_a_version_that_is_being_removed_is_not_written(service: Service, client: TestClient) -> None:
    found = sent(client)
    version = manifest_of(CSV).version()
    with service.db.write() as connection:
        claim_version(connection, found, version)
        claim_version(connection, found, version)
        connection.exec_driver_sql("UPDATE dataset_version SET doomed_at = 1.0")
    with pytest.raises(Exception, match="being removed"), service.db.write() as connection:
        claim_version(connection, found, version)


def test_a_folder_of_the_operator_is_named_not_sent(tmp_path: Path, sqlite_url: str) -> None:
    root, outside = tmp_path / "lake", tmp_path / "secret.csv"
    (root / "cars").mkdir(parents=True)
    (root / "cars/2026.csv").write_bytes(CSV)
    outside.write_bytes(CSV)
    (root / "out").symlink_to(outside)
    settings = settings_for(tmp_path, sqlite_url).model_copy(update={"dataset_roots": (root,)})
    for client in started(create_app(settings)):
        found = client.post("/v1/datasets", json={"name": "cars", "source": {"kind": "folder", "path": "cars"}})
        assert (found.status_code, found.json()["status"]) == (201, "queued"), found.text
        assert found.json()["source"] == {"kind": "folder", "path": "cars"}
        answers = [
            client.post("/v1/datasets", json={"name": "x", "source": {"kind": "folder", "path": path}})
            for path in ("out", "../secret.csv", str(outside), "nothing", "a\0b", "/etc/passwd", "x" * 1000)
        ]
        assert {answer.status_code for answer in answers} == {422}
        assert len({answer.json()["errors"][0]["message"] for answer in answers if "\0" not in answer.text}) <= 2


def test_in_a_bucket(tmp_path: Path, sqlite_url: str, bucket: StoreLocation) -> None:
    """The same from end to end, with the pieces in S3."""
    content = CSV * 300_000  # 11 MB: two pieces
    for client in in_a_bucket(tmp_path, sqlite_url, bucket):
        found = sent(client, content, sha256=digest(content))
        service = service_of(client)
        assert stored_content(service.db, service.store, found) == content
        prepare(service.db, service.store, found)
        assert read(client, found)["status"] == "ready"
        assert client.base_url == HERE


def in_a_bucket(tmp_path: Path, url: str, bucket: StoreLocation) -> Iterator[TestClient]:
    plain = settings_for(tmp_path, url).model_dump(exclude_unset=True) | in_bucket(bucket)
    return started(create_app(Settings.model_validate(plain | {"database_url": SecretStr(url)})))


def test_parts_go_to_the_bucket_directly(
    tmp_path: Path, sqlite_url: str, bucket: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "PART_BYTES", 20)
    for client in in_a_bucket(tmp_path, sqlite_url, bucket):
        found, other = created(client), created(client)
        answer = client.post(found["links"]["links"], json={"parts": 1})
        assert (answer.status_code, len(answer.json()["parts"])) == (200, 1), answer.text
        parts = client.post(found["links"]["links"]).json()["parts"]
        assert [(part["offset"], part["bytes"]) for part in parts] == [(0, 20), (20, len(CSV) - 20)]
        named = [{"offset": part["offset"], "key": part["key"]} for part in parts]
        complete = f"{found['links']['links']}/complete"
        early = client.post(complete, json={"parts": named})
        assert (early.status_code, early.json()["code"], early.json()["offset"]) == (409, "part_missing", 0)
        for part in parts:
            sent = CSV[part["offset"] : part["offset"] + part["bytes"]]
            assert httpx2.put(part["url"], content=sent, trust_env=False).status_code == 200
        stolen = client.post(f"{other['links']['links']}/complete", json={"parts": named})
        assert (stolen.status_code, stolen.json()["code"]) == (409, "part_missing")
        assert client.post(complete, json={"parts": named[1:]}).json()["code"] == "offset_mismatch"
        assert client.post(complete, json={"parts": [named[0], named[0]]}).json()["code"] == "part_missing"
        first = client.post(complete, json={"parts": named[:1]}).json()
        assert (first["status"], first["upload"]["offset"]) == ("uploading", 20)
        assert client.post(complete, json={"parts": named[1:]}).json()["status"] == "queued"
        service = service_of(client)
        assert stored_content(service.db, service.store, found["id"]) == CSV


def test_a_folder_has_no_links(light: TestClient) -> None:
    answer = light.post(created(light)["links"]["links"])
    assert (answer.status_code, answer.json()["code"]) == (409, "no_links")
