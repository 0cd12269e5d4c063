"""Requests to the service: retried where that is safe; every failure is one of `basin.errors`."""

import random
import re
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import httpx2

from basin.errors import BadAnswer, BadKey, Problem, Unreachable

TRIES = 4
PAUSE = 0.1
LONGEST_PAUSE = 5.0
AGAIN = frozenset({429, 502, 503, 504})
"""Status codes to retry: a quota is exceeded, or the service (or a proxy before it) is temporarily unavailable."""


def is_loopback(host: str) -> bool:
    """Whether the host is this machine; proxies from the environment are then ignored."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def retry_delay(tried: int, answer: httpx2.Response | None) -> float:
    """Seconds before try number `tried + 1`: the answer's Retry-After, else exponential backoff with jitter."""
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    if asked.isdigit():
        return min(float(asked), LONGEST_PAUSE)
    return PAUSE * random.uniform(0.5, 1.0) * (1 << tried)


class Transport:
    """A connection pool to one service. `transport` replaces the network (tests, in-process apps)."""

    def __init__(self, url: str, key: str | None, timeout: float, transport: httpx2.BaseTransport | None) -> None:
        self.url = url.rstrip("/")
        try:
            host = httpx2.URL(self.url).host
        except httpx2.InvalidURL as error:
            raise Unreachable(self.url, f"not an address ({error})") from error
        headers = {"Accept": "application/json", "User-Agent": "basin-python"}
        self.http = httpx2.Client(
            base_url=self.url,
            headers=headers | ({"Authorization": f"Bearer {check_api_key(key)}"} if key else {}),
            timeout=httpx2.Timeout(timeout, connect=3.0),
            transport=transport,
            trust_env=not is_loopback(host),
        )

    def get(
        self, path: str, *, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """The answer to a GET, with a status below 400."""
        return self.send(self.http.build_request("GET", path, params=without_none(params), headers=headers))

    def post(
        self,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """The answer to a POST, with a status below 400. Only for requests that may arrive twice."""
        return self.send(self.http.build_request("POST", path, json=body, params=without_none(params), headers=headers))

    def patch(self, path: str, *, body: Any, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """The answer to a PATCH that sets values, so that it may arrive twice."""
        return self.send(self.http.build_request("PATCH", path, json=body, headers=headers))

    def put(self, path: str, *, body: Any) -> httpx2.Response:
        """The answer to a PUT."""
        return self.send(self.http.build_request("PUT", path, json=body))

    def delete(self, path: str) -> httpx2.Response:
        """The answer to a DELETE."""
        return self.send(self.http.build_request("DELETE", path))

    def send(self, request: httpx2.Request) -> httpx2.Response:
        """Sends a request, up to `TRIES` times. Raises Unreachable without an answer, Problem for an error status."""
        for tried in range(TRIES):
            last: httpx2.Response | None = None
            try:
                last = self.http.send(request)
            except httpx2.UnsupportedProtocol as error:
                raise Unreachable(self.url, str(error)) from error
            except httpx2.TransportError as error:
                if tried == TRIES - 1:
                    raise Unreachable(self.url, describe_error(error)) from error
            if last is not None and (last.status_code not in AGAIN or tried == TRIES - 1):
                return raise_for_problem(last)
            time.sleep(retry_delay(tried, last))
        raise Unreachable(self.url, "no answer after all tries")


def check_api_key(key: str) -> str:
    """The key. Raises BadKey for characters that a header cannot hold: httpx2's own error would quote the key."""
    bare = key.strip()
    if not bare.isascii() or not bare.isprintable() or " " in bare:
        raise BadKey("the API key contains characters that are not allowed in a key; check BASIN_API_KEY or --key")
    return bare


def without_none(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """The query parameters that are not None."""
    return {name: value for name, value in (params or {}).items() if value is not None}


def describe_error(error: httpx2.TransportError) -> str:
    """Why there was no answer; the messages of httpx2 are often only 'timed out' or empty."""
    if isinstance(error, httpx2.ConnectTimeout):
        return "it does not accept connections"
    if isinstance(error, httpx2.TimeoutException):
        return "it took too long"
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def raise_for_problem(answer: httpx2.Response) -> httpx2.Response:
    """The answer, if its status is below 400. Raises the `Problem` that it reports otherwise."""
    if answer.status_code < 400:
        return answer
    body = parse_object(answer)
    raise Problem.from_body(answer.status_code, body)


def parse_object(answer: httpx2.Response) -> dict[str, Any]:
    """The JSON object in an answer. Raises BadAnswer when there is none."""
    try:
        body = answer.json()
    except ValueError as error:
        where = f"{answer.request.method} {url_without_query(answer)}"
        raise BadAnswer(f"{where} answered {answer.status_code} without JSON: is this a Basin service?") from error
    if not isinstance(body, dict):
        raise BadAnswer(
            f"{url_without_query(answer)} answered {answer.status_code} with something other than a JSON object"
        )
    return body


def url_without_query(answer: httpx2.Response) -> httpx2.URL:
    """The URL of the answer without its query: the query of a store's presigned URL is a credential."""
    return answer.request.url.copy_with(query=None)
