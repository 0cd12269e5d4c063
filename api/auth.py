"""Who asks, and what they may do. Every route is denied unless its router depends on `authorize`; only health and
the description of the API do without.

As long as there is no key, the service answers on loopback only, and there it must expect a browser to be tricked: a
page from anywhere may point its own name at 127.0.0.1 (DNS rebinding) and post forms across sites. Hence the rules for
Host, Origin and, in `deps`, for the content type. Once there is a key, only it opens anything, and no page has it.
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
    """On whose behalf a request acts, what it may do, and how much of it."""

    owner: str
    project: str
    scopes: frozenset[str]
    limits: Limits = field(default_factory=Limits)

    @property
    def manages_projects(self) -> bool:
        """Whether it may make projects, and keys of all of them: the administrators of the default project may."""
        return self.project == DEFAULT and "admin" in self.scopes


LOCAL = Principal("local", DEFAULT, frozenset({"read", "write", "admin"}))


async def authenticate_request(request: Request) -> Principal:
    """Whom the key acts for; without any key yet, whoever reaches a loopback address: `guard` saw to the rest.

    Raises:
        Unauthenticated: a key is needed, and this is none that opens anything.
        QuotaExceeded: it has made as many requests in the last minute as it may.
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
    """Whether the same request would be let in again now; as long as the database is away nobody can say otherwise.

    One at a time asks the database: of all streams that come at once the others then find it answered.
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
    """The key that opens to this request; None when none is asked for."""
    if not await requires_key(request.app.state, turn):
        return None
    keyring: Keyring = request.app.state.service.keyring
    text = bearer_token(request.headers)
    return keyring.recall_key(text) or await to_thread.run_sync(keyring.look_up, text, limiter=turn)


def scope_for(method: str, path: str) -> str:
    """The scope that a request needs."""
    if path == ADMINISTERED or path.startswith(f"{ADMINISTERED}/") or (method, path) == MAKES_PROJECTS:
        return "admin"
    return "read" if method in {"GET", "HEAD"} or path in CHANGES_NOTHING else "write"


def bearer_token(headers: Headers) -> str:
    """What is presented as a key; empty when there is nothing, or more than one thing."""
    given = headers.getlist("authorization")
    scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return text.strip() if scheme.lower() == "bearer" else ""


async def requires_key(state: Any, turn: CapacityLimiter | None = None) -> bool:
    """Whether only a key opens anything: it is so beyond loopback, and everywhere once there was a key."""
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
    """Raise Misconfigured for an address that others can reach while there is no key: nobody could use the service."""
    if not is_loopback(host) and not active:
        raise Misconfigured(
            f"BASIN_HOST={host!r} is not a loopback address, and there is no API key yet: make one with "
            "`basin key create` first, or use 127.0.0.1."
        )


async def reject_cross_site(headers: Headers, state: Any) -> None:
    """Raise Forbidden for a request that a browser was tricked into, as long as no key is asked for."""
    reason = _foreign_origin(headers)
    if reason is not None and not await requires_key(state):
        raise Forbidden(reason)


def _foreign_origin(headers: Headers) -> str | None:
    """What is wrong with a Host or an Origin that is not ours."""
    hosts = headers.getlist("host")
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None or not is_loopback(match[1]):
        return "This service answers to loopback names only: use http://127.0.0.1 or http://localhost."
    for origin in headers.getlist("origin"):
        scheme, _, authority = origin.partition("://")
        if scheme not in {"http", "https"} or authority.lower() != hosts[0].lower():
            return "Pages of other origins may not call this service."
    return None
