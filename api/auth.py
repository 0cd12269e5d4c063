"""Who asks. Every route is denied unless its router depends on `authenticate`; only the health routes do without.

There are no keys yet, so the service answers on loopback only, and there it must expect a browser to be tricked: a page
from anywhere may point its own name at 127.0.0.1 (DNS rebinding) and post forms across sites. Hence the rules for Host,
Origin and, in `deps`, for the content type.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.datastructures import Headers

from core.errors import Forbidden, Misconfigured

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Principal:
    """On whose behalf a request acts, and what it may do."""

    owner: str
    scopes: frozenset[str]


LOCAL = Principal("local", frozenset({"read", "write", "admin"}))


async def authenticate() -> Principal:
    """Whoever reaches a loopback address without a key is the owner of the machine; `guard` saw to the rest."""
    return LOCAL


Caller = Annotated[Principal, Depends(authenticate)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`, a name or an address, IPv6 with or without brackets."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def require_loopback(host: str) -> None:
    """Raise Misconfigured for an address that others can reach: without keys anybody there could start jobs."""
    if not is_loopback(host):
        raise Misconfigured(
            f"BASIN_HOST={host!r} is not a loopback address, and this version has no API keys yet: anybody who reaches "
            "it could start jobs. Use 127.0.0.1, and a tunnel or an authenticating proxy for others."
        )


def guard(headers: Headers) -> None:
    """Raise Forbidden for a request that a browser was tricked into: a Host or an Origin that is not ours."""
    hosts = headers.getlist("host")
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None or not is_loopback(match[1]):
        raise Forbidden("This service answers to loopback names only: use http://127.0.0.1 or http://localhost.")
    for origin in headers.getlist("origin"):
        scheme, _, authority = origin.partition("://")
        if scheme not in {"http", "https"} or authority.lower() != hosts[0].lower():
            raise Forbidden("Pages of other origins may not call this service.")
