"""Authentication and authorization. A route is denied unless its router depends on `authorize_request`; only health
and the description of the API are open.

While no key exists, the service answers on loopback only. A browser on this machine can still be misused: a page of
any site can point its own name at 127.0.0.1 (DNS rebinding) and post forms across sites. Hence the rules for Host,
Origin and, in `api/dependencies.py`, for the content type. Once a key exists, every request needs one.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from starlette.datastructures import Headers

from api.key_cache import Keyring
from core.db.session import is_transient
from core.errors import Forbidden, Misconfigured, Unauthenticated
from core.jobs.keys import Key
from core.jobs.projects import DEFAULT
from core.settings import Limits, Settings

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(?::[0-9]{1,5})?")
ADMINISTERED: Final = "/v1/keys"
MAKES_PROJECTS: Final = ("POST", "/v1/projects")
CHANGES_NOTHING: Final = frozenset({"/v1/schedules/preview"})  # posts that only compute


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner and project that a request acts for, its scopes and its limits."""

    owner: str
    project: str
    scopes: frozenset[str]
    limits: Limits = field(default_factory=Limits)

    @property
    def manages_projects(self) -> bool:
        """Whether it may make projects and keys of all projects: administrators of the project `default` may."""
        return self.project == DEFAULT and "admin" in self.scopes


LOCAL = Principal("local", DEFAULT, frozenset({"read", "write", "admin"}))


async def authenticate_request(request: Request) -> Principal:
    """The principal of the request's key; the local principal while no key exists (`reject_cross_site` ran before).

    Raises:
        Unauthenticated: a key is needed, and the request has no valid one.
        QuotaExceeded: the key has made as many requests in the last minute as its limits allow.
    """
    key = await _key_of(request)
    if key is None:
        return LOCAL
    request.app.state.service.keyring.count_request(key.id, key.limits)
    return Principal(key.owner, key.project, frozenset(key.scopes), key.limits)


Caller = Annotated[Principal, Depends(authenticate_request)]


async def authorize_request(request: Request, caller: Caller) -> None:
    """Raise Forbidden unless the caller's scopes allow this: read for GET, write for changes, admin for keys and for
    new projects.
    """
    needed = scope_for(request.method, request.url.path)
    if needed not in caller.scopes:
        raise Forbidden(f"This key lacks the scope {needed!r}.")


async def is_still_authorized(request: Request) -> bool:
    """Whether the same request would be authorized again now; True while the database is away.

    One stream at a time reads the database; the streams that wait meanwhile find the answer in the cache.
    """
    try:
        await _key_of(request, request.app.state.service.live.turn)
    except Unauthenticated:
        return False
    except Exception as error:
        if not is_transient(error):
            raise
    return True


async def _key_of(request: Request, turn: CapacityLimiter | None = None) -> Key | None:
    """The key of this request; None when no key is required."""
    if not await requires_key(request.app.state, turn):
        return None
    keyring: Keyring = request.app.state.service.keyring
    text = bearer_token(request.headers)
    return keyring.recall_key(text) or await to_thread.run_sync(keyring.look_up, text, limiter=turn)


def scope_for(method: str, path: str) -> str:
    """The scope that a request needs."""
    if path == ADMINISTERED or path.startswith(f"{ADMINISTERED}/") or (method, path) == MAKES_PROJECTS:
        return "admin"
    return "read" if method in {"GET", "HEAD", "OPTIONS"} or path in CHANGES_NOTHING else "write"


def bearer_token(headers: Headers) -> str:
    """The bearer token of the Authorization header; empty when there is no such header, or more than one."""
    given = headers.getlist("authorization")
    scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return text.strip() if scheme.lower() == "bearer" else ""


async def requires_key(state: Any, turn: CapacityLimiter | None = None) -> bool:
    """Whether requests need a key: beyond loopback always, on loopback once a key was made."""
    settings: Settings = state.settings
    if not is_loopback(settings.host):
        return True
    keyring: Keyring = state.service.keyring
    known = keyring.recall_any_made()
    return await to_thread.run_sync(keyring.any_made, limiter=turn) if known is None else known


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`, a name or an address, IPv6 with or without brackets."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def require_key(host: str, *, active: bool) -> None:
    """Raise Misconfigured for an address that is not loopback while no key exists: no request could be authorized."""
    if not is_loopback(host) and not active:
        raise Misconfigured(
            f"BASIN_HOST={host!r} is not a loopback address, and there is no API key yet: make one with "
            "`basin key create` first, or use 127.0.0.1."
        )


async def reject_cross_site(headers: Headers, state: Any) -> None:
    """Raise Forbidden for a request with a foreign Host or Origin, while no key is required."""
    reason = _foreign_origin(headers)
    if reason is not None and not await requires_key(state):
        raise Forbidden(reason)


def _foreign_origin(headers: Headers) -> str | None:
    """The problem with a Host or an Origin that is not this service's; None when both are."""
    hosts = headers.getlist("host")
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None or not is_loopback(match[1]):
        return "This service answers to loopback names only: use http://127.0.0.1 or http://localhost."
    for origin in headers.getlist("origin"):
        scheme, _, authority = origin.partition("://")
        if scheme not in {"http", "https"} or authority.lower() != hosts[0].lower():
            return "Pages of other origins may not call this service."
    return None
