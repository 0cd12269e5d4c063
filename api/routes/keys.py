"""API keys. They need the scope admin: for the keys of its own project, in the project `default` for all projects."""

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from api.auth import Caller, Principal
from api.bodies import KeyRequest, Scope, read_body
from api.dependencies import Body, KeyId, Running
from api.json_documents import JsonResponse, format_timestamp
from api.long_poll import IfMatch, format_etag
from api.openapi import json_body, problem_responses
from api.paging import page_envelope
from core.errors import FieldProblem, Forbidden, InvalidRequest
from core.jobs.keys import Key, create_key, get_key, key_version, list_keys, revoke_key
from core.settings import Limits

router = APIRouter(prefix="/keys", tags=["keys"])

EXAMPLE = {"name": "nightly runs", "scopes": ["read", "write"], "limits": {"queued_jobs": 100}}


class ApiKey(BaseModel):
    """A key without its secret. The secret is shown once, as `key`, in the response that creates the key."""

    id: str
    object: Literal["key"]
    name: str | None
    owner: str
    project: str
    prefix: str
    scopes: list[Scope]
    limits: Limits
    status: Literal["active", "expired", "revoked"]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewApiKey(ApiKey):
    """A new key. Keep `key`: it cannot be shown again."""

    key: str


class ApiKeys(BaseModel):
    """All keys of the project, or of all projects, oldest first."""

    object: Literal["list"]
    data: list[ApiKey]
    has_more: Literal[False]
    last_id: str | None


@router.post(
    "",
    operation_id="create_key",
    status_code=201,
    response_model=NewApiKey,
    responses=problem_responses(400, 408, 413, 415, 422),
    openapi_extra=json_body("KeyRequest", limited=EXAMPLE),
)
def create_api_key(body: Body, caller: Caller, service: Running) -> JsonResponse:
    """Create a key for the caller's project; administrators of `default` can name another project. Once a key exists,
    every route but health and the docs needs one.
    """
    wanted = read_body(body, KeyRequest)
    project = wanted.project or caller.project
    if project != caller.project and not caller.manages_projects:
        raise Forbidden("Keys for other projects need the scope 'admin' of the project 'default'.")
    key, text = create_key(
        service.db,
        owner=caller.owner,
        project=project,
        name=wanted.name,
        scopes=wanted.scopes,
        limits=_limits_within(wanted.limits, caller.limits),
        expires_at=wanted.expires_at.timestamp() if wanted.expires_at is not None else None,
    )
    service.keyring.forget_key(key.id)
    return JsonResponse(
        _key_document(key) | {"key": text}, 201, {"Location": f"/v1/keys/{key.id}", "Cache-Control": "no-store"}
    )


@router.get("", operation_id="list_keys", response_model=ApiKeys, responses=problem_responses())
def list_api_keys(caller: Caller, service: Running) -> JsonResponse:
    """The keys of the caller's project, oldest first, expired and revoked ones included. Administrators of `default`
    see those of all projects.
    """
    return JsonResponse(page_envelope([_key_document(key) for key in list_keys(service.db, project=_realm(caller))]))


@router.get("/{key_id}", operation_id="get_key", response_model=ApiKey, responses=problem_responses(404))
def get_api_key(key_id: KeyId, caller: Caller, service: Running) -> JsonResponse:
    """One key."""
    key = get_key(service.db, _realm(caller), key_id)
    return JsonResponse(_key_document(key), headers={"ETag": format_etag(key_version(key.revoked_at))})


@router.delete("/{key_id}", operation_id="revoke_key", status_code=204, responses=problem_responses(404, 412, 413, 415))
def revoke_api_key(key_id: KeyId, fits: IfMatch, caller: Caller, service: Running) -> Response:
    """Revoke a key; it is refused after five seconds at most. Idempotent."""
    revoke_key(service.db, _realm(caller), key_id, fits)
    service.keyring.forget_key(key_id)
    return Response(status_code=204)


def _realm(caller: Principal) -> str | None:
    """The project whose keys the caller administers; None: those of all projects."""
    return None if caller.manages_projects else caller.project


def _limits_within(asked: Limits, own: Limits) -> Limits:
    """The limits of a new key: at most the caller's own. Raises InvalidRequest for more."""
    wanted = asked.with_defaults(own)
    more = [
        FieldProblem(f"/limits/{name}", f"more than your own {most}")
        for name, most in own.model_dump(exclude_none=True).items()
        if getattr(wanted, name) > most
    ]
    if more:
        raise InvalidRequest(errors=tuple(more))
    return wanted


def _key_document(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "owner": key.owner,
        "project": key.project,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "limits": key.limits.model_dump(),
        "status": key.status,
        "created_at": format_timestamp(key.created_at),
        "expires_at": format_timestamp(key.expires_at),
        "revoked_at": format_timestamp(key.revoked_at),
        "last_used_at": format_timestamp(key.last_used_at),
    }
