"""The description of the API: complete, true, and found to be true by somebody who tries."""

import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.routes.analyses import SOME_JOB
from api.summaries import SUMMARIES
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.keys import create_key
from core.jobs.queue.submit import create_job
from core.lifecycle import Status
from tests.api.conftest import service_of
from tests.api.test_jobs import taken
from tests.support.jobs import chunk, new_checkpoint, small_spec

FUZZ_CASES = int(os.environ.get("FUZZ_CASES", "0"))  # scripts/fuzz wants thousands; a plain run takes a few of each
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def shared(shared: TestClient) -> TestClient:
    """With a key that may do everything: the requests here make keys, and from the first one on, one is asked for."""
    _, text = create_key(service_of(shared).db, owner="local", scopes=("read", "write", "admin"))
    shared.headers["Authorization"] = f"Bearer {text}"
    return shared


def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(client: TestClient) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document(client)["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_operation_has_a_name_and_a_summary(shared: TestClient) -> None:
    found = list(operations(shared))
    names = [operation["operationId"] for _, _, operation in found]
    assert len(names) == len(set(names))
    assert all(name.replace("_", "").isalpha() and name == name.lower() for name in names)
    assert [path for path, _, operation in found if not operation.get("description")] == []


def test_every_summary_says_what_the_call_does(shared: TestClient) -> None:
    """A page of "Get One", "Of Job" and "Let Go" is a page in which nobody finds anything."""
    found = {operation["operationId"]: operation["summary"] for _, _, operation in operations(shared)}
    assert found == SUMMARIES, "one entry for each operation, and none for one that is gone"
    verbs = {"Cancel", "Check", "Compare", "Create", "Delete", "Download", "Edit", "Fork", "Get", "List"}
    verbs |= {"Append", "Correct", "Prepare", "Upload"}
    verbs |= {"Pause", "Pin", "Plot", "Preview", "Resume", "Retry", "Revoke", "Submit", "Unpin"}
    assert [summary for summary in found.values() if summary.split()[0] not in verbs] == []
    assert [summary for summary in found.values() if len(summary.split()) < 2 or summary.endswith(".")] == []
    assert [summary for summary, times in Counter(found.values()).items() if times > 1] == []


def test_every_operation_says_how_it_refuses(shared: TestClient) -> None:
    for path, _, operation in operations(shared):
        if path in {"/healthz", "/readyz"}:
            continue
        refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"401", "403", "429", "503"} <= set(refusals), path
        for answer in refusals.values():
            assert list(answer["content"]) == ["application/problem+json"], path
        if "_id}" in path:
            assert "404" in refusals, path
        if operation.get("requestBody"):
            assert {"400", "413", "415", "422"} <= set(refusals), path


def test_every_change_of_a_thing_can_depend_on_its_state(shared: TestClient) -> None:
    for path, method, operation in operations(shared):
        conditions = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"]
        changes = method != "get" and "_id}" in path
        if path.startswith("/v1/datasets/"):  # its content never changes, and Upload-Offset is an upload's condition
            continue
        assert ("if-match" in conditions, "412" in operation["responses"]) == (changes, changes), (method, path)


def test_the_document_is_whole(shared: TestClient) -> None:
    found = document(shared)
    assert found["openapi"].startswith("3.1")
    schemas = found["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(found)} <= set(schemas)
    assert {"JobSpec", "Job", "Problem", "PreviewRequest"} <= set(schemas)
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)
    assert found["security"] == [{"key": []}, {}]
    assert [path for path, _, operation in operations(shared) if "security" in operation] == ["/healthz", "/readyz"]
    assert set(schemas["JobSpec"]["properties"]) < set(schemas["Job"]["properties"])


def test_the_examples_work(shared: TestClient, waiting: str, lived: dict[str, str]) -> None:
    tried = 0
    for path, method, operation in operations(shared):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in content.get("examples", {}).values():
            job_id = lived["job_id"] if path.endswith(("/retry", "/fork")) else waiting
            body = json.loads(json.dumps(example["value"]).replace(SOME_JOB, lived["job_id"]))
            if path == "/v1/projects":  # the fuzz of this app may have taken the name
                body["name"] += secrets.token_hex(4)
            filled = path.replace("{job_id}", job_id).replace("{dataset_id}", an_upload(shared))
            answer = shared.request(method, filled, json=body)
            assert answer.status_code in {200, 201}, answer.text
            tried += 1
    assert tried >= 3


def an_upload(client: TestClient) -> str:
    """The id of a dataset that can be corrected."""
    body, octets = b"zip\n1\n", {"Content-Type": "application/octet-stream"}
    found: str = client.post("/v1/datasets?name=zips", content=body, headers=octets).json()["id"]
    return found


@pytest.fixture(scope="module")
def waiting(shared: TestClient) -> str:
    """A job that nobody runs."""
    service = service_of(shared)
    return create_job(service.db, small_spec(resources={"device": "gpu"}), owner="local").job_id


@pytest.fixture(scope="module")
def lived(shared: TestClient, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A job that ran, with a checkpoint that is there: the fuzz gets behind the 404s."""
    service = service_of(shared)
    job_id = create_job(service.db, small_spec(priority=100), owner="local").job_id
    fence = taken(service)
    assert fence.job_id == job_id
    weights = tmp_path_factory.mktemp("weights") / "w"
    weights.write_bytes(b"w" * 1234)
    row = new_checkpoint(fence, 4)
    service.store.put_file(weights, f"{row.key}/weights.safetensors")
    record_checkpoint(service.db, fence, row, [chunk("train.loss", 0, 8)], resumable=True)
    results = {"base": {"test": {"loss": float("inf"), "accuracy": 0.5}}}
    error = {"code": "diverged", "message": "the loss is inf", "remedy": "lower the rate"}
    finish_job(
        service.db,
        fence,
        TerminalState(Status.FAILED, "non_finite", error, results, {"step": 8, "lr": float("nan")}),
        [],
    )
    return {"job_id": job_id, "checkpoint_id": row.id}


def cases(operation: Any) -> Any:
    """Requests as the document describes them, and as it forbids them."""
    fit = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not (operation.body or operation.query):
        return fit
    return fit | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


def test_what_is_said_is_true(shared: TestClient, lived: dict[str, str], waiting: str) -> None:
    """Generated requests for every operation: no 5xx, and no status, type or shape that was not announced."""
    seen: Counter[int] = Counter()
    schema: Any = schemathesis.openapi.from_dict(document(shared))
    found = [each.ok() for each in schema.get_all_operations()]
    rich = [operation for operation in found if operation.body or operation.query]
    for operation in sorted(found, key=rich.__contains__):  # those with few possible requests leave theirs to the rest
        few = 20 if operation.body else 10
        share = (FUZZ_CASES - seen.total()) // max(1, len(rich)) + 1

        @settings(
            max_examples=max(few, share),
            deadline=None,
            derandomize=not FUZZ_CASES,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases(operation), known=st.booleans())
        def conforms(case: Any, *, known: bool) -> None:
            if known:
                known_ids = lived | ({"job_id": waiting} if case.method == "DELETE" else {})
                case.path_parameters.update({name: known_ids[name] for name in lived if name in case.path_parameters})
            arguments = case.as_transport_kwargs(base_url=str(shared.base_url))
            arguments.pop("cookies", None)
            if isinstance(arguments.get("data"), bytes):
                arguments["content"] = arguments.pop("data")
            answer = shared.request(**arguments)
            case.validate_response(answer, checks=CHECKS)
            seen[answer.status_code] += 1

        conforms()
        if operation in rich:
            rich.remove(operation)
    print(f"{seen.total()} cases:", dict(sorted(seen.items())))  # noqa: T201 - what a fuzz is asked for
    assert seen.total() >= max(100, FUZZ_CASES)
    assert {200, 404, 409, 422} <= set(seen)
