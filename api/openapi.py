"""The parts of the OpenAPI document that FastAPI does not derive: raw bodies, problems, security."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.auth import CHANGES_NOTHING
from api.bodies import (
    AnalysisRequest,
    DatasetRequest,
    ForkRequest,
    JobChanges,
    KeyRequest,
    LinksRequest,
    PartsRequest,
    ProjectRequest,
    RetryRequest,
    SchemaRequest,
)
from api.errors import Problem
from api.summaries import add_summaries
from core.recipe.preview import PreviewRequest
from core.recipe.spec import JobSpec

BODIES = (
    JobSpec,
    PreviewRequest,
    JobChanges,
    RetryRequest,
    ForkRequest,
    KeyRequest,
    ProjectRequest,
    AnalysisRequest,
    DatasetRequest,
    SchemaRequest,
    LinksRequest,
    PartsRequest,
)
REF = "#/components/schemas/{model}"
# In order: no key; a missing scope or a foreign Host; slow headers; a limit; too many headers; the database is away.
ALWAYS = (401, 403, 408, 429, 431, 503)
KEY = {"type": "http", "scheme": "bearer", "bearerFormat": "bsn_…", "description": "Required once a key was made."}
OPEN = ("/healthz", "/readyz")

DESCRIPTION = """Post *what* to train and *how*; a worker trains it; metrics and checkpoints come back here.

Every refusal is an RFC 9457 problem with a stable `code` and, for bodies, the JSON pointer of each wrong field.
Times are RFC 3339 in UTC. NaN and infinities appear as the strings "NaN", "Infinity" and "-Infinity"."""


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: problems with these statuses and with those that every route may return."""
    content = {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, *ALWAYS})
    }


def json_body(schema: str, *, required: bool = True, **examples: object) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads a JSON body itself, strictly."""
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=schema)}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def build_openapi(app: FastAPI) -> Mapping[str, Any]:
    """The OpenAPI 3.1 document of `app`."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    _, bodies = models_json_schema([(body, "validation") for body in (*BODIES, Problem)], ref_template=REF)
    document["components"]["schemas"] |= bodies["$defs"]
    add_summaries(document)
    _drop_foreign_errors(document)
    _document_security(document)
    _document_storage_full(document)
    return document


def _document_security(document: dict[str, Any]) -> None:
    """Add the security scheme; the empty alternative is for a service without keys."""
    document["components"]["securitySchemes"] = {"key": KEY}
    document["security"] = [{"key": []}, {}]
    for path in OPEN:
        for operation in document["paths"][path].values():
            operation["security"] = []


def _document_storage_full(document: dict[str, Any]) -> None:
    """Add 507 to every operation that writes: the disk of the database may be full."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method != "get" and path not in CHANGES_NOTHING:
                operation["responses"].setdefault("507", problem_responses(507)[507])


def _drop_foreign_errors(document: dict[str, Any]) -> None:
    """Remove FastAPI's own error schema, which it documents for routes with parameters; errors here are problems."""
    for operations in document["paths"].values():
        for operation in operations.values():
            unprocessable = operation.get("responses", {}).get("422", {})
            if "application/json" in unprocessable.get("content", {}):
                del operation["responses"]["422"]
    for foreign in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(foreign, None)
