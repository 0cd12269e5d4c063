"""What clients get wrong, by accident or on purpose: a 4xx that says where, at once, and nothing stored."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.middleware import MAX_BODY
from core.recipe.spec import JobSpec
from tests.support.mutants import Mutant, mutants

JOB: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [8]},
    "data": {"name": "iris"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "epochs": 2,
}
SGD = JOB["optimizer"]
HEADERS = {"Content-Type": "application/json"}


def raw(**texts: str) -> bytes:
    """The job as JSON text in which some fields are these very texts."""
    given = {name: json.dumps(value) for name, value in JOB.items()} | texts
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in given.items()) + "}").encode()


@pytest.fixture
def stored_nothing(shared: TestClient) -> Iterator[None]:
    """And so it was: there are no more jobs after the test than before."""
    before = shared.get("/v1/jobs?limit=100").json()
    yield
    assert shared.get("/v1/jobs?limit=100").json() == before


def refused(client: TestClient, body: bytes, status: int) -> dict[str, Any]:
    began = time.process_time()
    answer = client.post("/v1/jobs", content=body, headers=HEADERS)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert time.process_time() - began < 5, "no input may keep the service busy"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert len(answer.content) < 20_000, "an answer is no echo"
    return problem


# Each: the changed fields, and the pointer of the problem. What a schema tells is in tests/unit/test_wrong_fields.py.
WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"state": "succeeded"}, "/state"),
    ({"owner_id": "root"}, "/owner_id"),
    ({"optimizer": SGD | {"lr": "NaN"}}, "/optimizer/lr"),
    ({"optimizer": SGD | {"nesterov": True}}, "/optimizer/nesterov"),
    ({"batch_size": 32.0}, "/batch_size"),
    ({"batch_size": 151}, "/batch_size"),  # iris has 150 examples
    ({"batch_size": 2**63}, "/batch_size"),
    ({"epochs": None}, "/epochs"),
    ({"steps": 10**30}, "/steps"),
    ({"schedule": {"name": "cosine", "warmup": "-1ep"}}, "/schedule/warmup"),
    ({"evaluate": {"every": ""}}, "/evaluate/every"),
    ({"model": {"name": "mlp", "hidden": [8] * 10_000}}, "/model/hidden"),
    ({"metadata": {f"k{i}": "v" for i in range(17)}}, "/metadata"),
    ({"metadata": {"k": 1}}, "/metadata/k"),
    ({"name": "x" * 100_000}, "/name"),
    ({"name": "two\nlines"}, "/name"),
    ({"name": "\u202egnp.exe"}, "/name"),
]


@pytest.fixture(scope="module")
def wrong_documents() -> list[Mutant]:
    """One for each field of a job and of each component, by the schema that the service itself tells."""
    found = {
        mutant.pointer: mutant for mutant in mutants(JobSpec.model_json_schema(), {"/optimizer/optimizer": "lion"})
    }
    return [mutant for mutant in found.values() if mutant.pointer.count("/") < 3]


def test_the_pointer_of_every_field_comes_through(
    shared: TestClient, stored_nothing: None, wrong_documents: list[Mutant]
) -> None:
    for mutant in wrong_documents:
        problem = refused(shared, json.dumps(mutant.document).encode(), 422)
        assert problem["code"] == "invalid_spec"
        assert mutant.named_by([error["pointer"] for error in problem["errors"]]), (str(mutant), problem["errors"])


@pytest.mark.parametrize(("changes", "pointer"), WRONG_FIELDS, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_named(
    shared: TestClient, stored_nothing: None, changes: dict[str, Any], pointer: str
) -> None:
    problem = refused(shared, json.dumps(JOB | changes).encode(), 422)
    assert problem["code"] == "invalid_spec"
    assert any(error["pointer"].startswith(pointer) for error in problem["errors"]), problem["errors"]
    assert all(error["message"] for error in problem["errors"])


def test_a_near_miss_gets_a_hint(shared: TestClient) -> None:
    body = JOB | {"optimizer": {"name": "sdg", "lr": 0.1}, "epoch": 3}
    hints = {e["pointer"]: e["hint"] for e in refused(shared, json.dumps(body).encode(), 422)["errors"]}
    assert hints == {"/optimizer/name": 'did you mean "sgd"?', "/epoch": 'did you mean "epochs"?'}


def test_a_job_without_a_budget_is_refused(shared: TestClient, stored_nothing: None) -> None:
    body = {name: value for name, value in JOB.items() if name != "epochs"}
    assert [error["pointer"] for error in refused(shared, json.dumps(body).encode(), 422)["errors"]] == ["/epochs"]


def lr(text: str) -> bytes:
    return raw(optimizer=f'{{"name": "sgd", "lr": {text}}}')


MALFORMED = {
    "empty": b"",
    "blank": b"  \n",
    "no json": b"model: mlp",
    "cut off": b'{"model": {"name": "mlp"',
    "trailing": raw() + b"}",
    "two documents": raw() + raw(),
    "not utf-8": raw(name='"\xff"').decode().encode("latin-1"),
    "utf-16": raw().decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + raw(),
    "NaN": lr("NaN"),
    "Infinity": lr("-Infinity"),
    "control character": raw(name='"a\tb"'),
    "raw NUL": raw(name='"a\0b"'),
    "duplicate key": raw(epochs='2, "epochs": 3'),
    "duplicate key inside": raw(optimizer='{"name": "sgd", "lr": 0.1, "lr": 0.2}'),
    "duplicate key by escape": raw(epochs='2, "\\u0065pochs": 3'),
    "100,000 brackets": b"[" * 100_000,
    "100,000 closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "200 levels": raw(metadata='{"a":' * 200 + "1" + "}" * 200),
    "too many values": raw(metadata="[" + "0," * 30_000 + "0]"),
    "too many keys": raw(metadata="{" + ",".join(f'"k{i}":0' for i in range(1_001)) + "}"),
    "a number of 100,000 digits": lr("1" * 100_000),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_json_is_a_400(shared: TestClient, stored_nothing: None, name: str) -> None:
    assert refused(shared, MALFORMED[name], 400)["code"] == "malformed_json"


UNFIT = {
    "list": b"[]",
    "null": b"null",
    "number": b"1",
    "string": b'"mlp"',
    "overflow": lr("1e400"),
    "minus overflow": lr("-1e400"),
    "minus zero": lr("-0"),
    "underflow": lr("1e-400"),
    "2^63": raw(epochs=str(2**63)),
    "NUL": raw(name='"a\\u0000b"'),
    "NUL in a key": raw(metadata='{"a\\u0000": "b"}'),
    "lone surrogate": raw(name='"\\ud800"'),
    "lone low surrogate": raw(metadata='{"k": "\\uDFFF"}'),
    "lone surrogate in a key": raw(metadata='{"\\udc00": "v"}'),
    "lone surrogate as a field": raw()[:-1] + b', "\\ud83d": 1}',
    "unprintable": raw(name='"\\u0007"'),
    "thousands of wrong items": raw(model='{"name": "mlp", "hidden": [' + '"a",' * 15_000 + '"a"]}'),
    "thousands of unknown fields": raw()[:-1] + b"," + b",".join(b'"optimize%d":0' % i for i in range(900)) + b"}",
}


@pytest.mark.parametrize("name", UNFIT)
def test_json_that_is_no_job_is_a_422(shared: TestClient, stored_nothing: None, name: str) -> None:
    assert refused(shared, UNFIT[name], 422)["errors"]


def test_an_escaped_pair_of_surrogates_is_one_character(shared: TestClient) -> None:
    answer = shared.post("/v1/jobs", content=raw(name='"\\ud83c\\udfc1 done"'), headers=HEADERS)
    assert (answer.status_code, answer.json()["name"]) == (201, "\N{CHEQUERED FLAG} done")


def test_a_strange_text_is_pointed_at(shared: TestClient) -> None:
    body = raw(metadata='{"a/b": "x\\u0000", "ok": "y"}', name='"\\udfff"')
    assert {error["pointer"] for error in refused(shared, body, 422)["errors"]} == {"/metadata/a~1b", "/name"}


def test_a_body_past_the_limit_is_refused(shared: TestClient, stored_nothing: None) -> None:
    assert refused(shared, b" " * (MAX_BODY + 1), 413)["code"] == "too_large"
    assert refused(shared, b" " * 12_000_000, 413)["code"] == "too_large"
    a_million_keys = b"{%s}" % b",".join(b'"%06d":0' % number for number in range(1_000_000))
    assert refused(shared, a_million_keys, 413)["code"] == "too_large"
    assert refused(shared, b" " * MAX_BODY, 400)["code"] == "malformed_json"


def test_a_body_without_a_length_is_counted(shared: TestClient, stored_nothing: None) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b" " * 65_536 for _ in range(200))

    answer = shared.post("/v1/jobs", content=chunks(), headers=HEADERS)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 40, "", "0x10"])
def test_nonsense_lengths_are_refused(shared: TestClient, length: str) -> None:
    answer = shared.post("/v1/jobs", content=b"", headers=HEADERS | {"Content-Length": length})
    assert answer.status_code in {400, 413}


NO_IDS = [
    *("job_01hzzzzzzzzzzzzzzzzzzzzzzz", "job_", "x", "job_01HZZZZZZZZZZZZZZZZZZZZZZZ", "x" * 5_000, "\N{SNOWMAN}"),
    *("..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%252e%252e%252f", "%2f%2f", "file:%2f%2f", "a%5cb", "a%23b", "a%3fb"),
    *("job_%00", "job_01hzzzzzzzzzzzzzzzzzzzzzzz%0a", "%ff", "'%20or%201=1--"),
]


@pytest.mark.parametrize("job_id", NO_IDS)
def test_an_id_that_names_nothing_is_a_404(shared: TestClient, job_id: str) -> None:
    for kind in ("jobs", "checkpoints"):
        for path in (f"/v1/{kind}/{job_id}", f"/v1/{kind}/{job_id}/content", f"/v1/{kind}/{job_id}/metrics"):
            assert shared.get(path).status_code == 404, path
    assert shared.post(f"/v1/jobs/{job_id}/cancel").status_code in {404, 405}


NO_FILES = [*NO_IDS, "../routes/docs.py", "favicon.png%00", "%2e%2e%2f__init__.py", "x/../a.css"]


@pytest.mark.parametrize("name", [name for name in NO_FILES if name != ".."])  # which clients take to mean /
def test_a_path_leads_out_of_no_folder(shared: TestClient, name: str) -> None:
    """The one route that opens files by name opens those that it lists."""
    answer = shared.get(f"/docs/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


WRONG_QUERIES = [
    *("limit=1000000000", "limit=10^9", "limit=0", "limit=-1", "limit=1.5", "limit=", "limit=" + "9" * 5_000),
    *("order=random", "order=spec", "status=done", "status=queued'--", "sort=owner", "owner=root", "limit=1&limit=x"),
    *("metadata=x", "metadata[]=x", "metadata[a]=1&metadata[a]=2", "metadata[a=1", "q=", "q=" + "x" * 201, "status="),
    *("after=x", "after=job_%00", "after=ckpt_01hzzzzzzzzzzzzzzzzzzzzzzz"),
]


@pytest.mark.parametrize("query", WRONG_QUERIES)
def test_wrong_list_parameters_are_refused(shared: TestClient, query: str) -> None:
    answer = shared.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    pointer = answer.json()["errors"][0]["pointer"].removesuffix("/0")  # the first of those that can be repeated
    assert pointer == f"/query/{query.partition('=')[0]}"


def test_what_no_database_can_look_for_is_refused(shared: TestClient) -> None:
    for query in ("q=%00", "metadata[a]=%00", "metadata[%00]=a", "&".join(f"metadata[{n}]=x" for n in range(17))):
        answer = shared.get(f"/v1/jobs?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), query


@pytest.mark.parametrize("query", ["dryrun=true", "dry-run=true", "dry_run=perhaps", "dry_run="])
def test_a_misspelt_dry_run_starts_nothing(shared: TestClient, stored_nothing: None, query: str) -> None:
    answer = shared.post(f"/v1/jobs?{query}", json=JOB)
    assert answer.status_code == 422


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\tb", b"\xc3\xa9"])
def test_an_unfit_idempotency_key_is_refused(shared: TestClient, stored_nothing: None, key: bytes) -> None:
    answer = shared.post("/v1/jobs", json=JOB, headers=[(b"Idempotency-Key", key)])
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("kind", ["models.", "Optimizers", "..", "%00", "keys"])
def test_an_unknown_catalog_kind_is_a_404(shared: TestClient, kind: str) -> None:
    assert shared.get(f"/v1/catalog/{kind}").status_code == 404


def test_a_preview_is_as_strict_as_a_job(shared: TestClient) -> None:
    request = {"optimizer": SGD, "epochs": 2}
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"epochs": None}, "/epochs"),
        ({"lr": 1}, "/lr"),
        ({"examples": 0}, "/examples"),
        ({"swa": {"every": 0}}, "/swa/every"),
        ({"ensemble": {"method": "fge", "cycle": 3}}, "/ensemble/cycle"),
        ({"ensemble": {"method": "snapshot"}, "schedule": {"name": "cosine"}}, "/schedule"),
        ({"ensemble": {"method": "fge"}, "swa": True}, "/swa"),
    )
    for changes, pointer in refused:
        answer = shared.post("/v1/schedules/preview", json=request | changes)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    for body in (b"", b"[" * 100_000, b'{"epochs": NaN}'):
        assert shared.post("/v1/schedules/preview", content=body, headers=HEADERS).status_code == 400
