"""What happens to every request before and after routing: an id, the guard, HEAD, the size limit, the last exception
handler, a line in the log. Plain ASGI, so that streams pass through untouched.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import respond
from core.errors import TooLarge, Unavailable

MAX_BODY = 1024 * 1024  # bytes; a job has a few hundred
LINGER_BYTES = 64 * MAX_BODY
LINGER_SECONDS = 2.0

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_log = logging.getLogger("basin.access")

Guard = Callable[[Headers], Awaitable[None]]


class Edge:
    """The outermost layer of ours. Nothing passes it without an answer, and no answer without a request id."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        """`guard` raises for requests that must not be looked at any further."""
        self.app, self.guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(scope, receive, send).run(self.app, self.guard)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        self.is_head = scope["method"] == "HEAD"
        self.scope = {**scope, "basin.request_id": self.request_id, "basin.head": self.is_head}
        if self.is_head:  # every GET route answers HEAD: the same headers, no body
            self.scope["method"] = "GET"
        self.method = scope["method"]
        self.receive, self._send = receive, send
        self.status = 0
        self.started_at = time.perf_counter()

    async def run(self, app: ASGIApp, guard: Guard) -> None:
        try:
            await self._admit(guard)
            await app(self.scope, self.receive, self.send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the process stops, and the time for answers that are under way is over
            if not self.status:
                await self._answer(Unavailable("The service stops; try again shortly."))
        except Exception as error:
            if self.status:
                raise  # headers are out: only a broken connection can still say that this went wrong
            await self._answer(error)
        finally:
            self._record()

    async def _admit(self, guard: Guard) -> None:
        await guard(self.headers)
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MAX_BODY:
            raise TooLarge(f"The body is larger than {MAX_BODY} bytes.")

    async def _answer(self, error: Exception) -> None:
        response = respond(self.request_id, error)
        if response.status_code == 413:
            response.headers["Connection"] = "close"
        if response.status_code != 413 or self.is_head or "expect" in self.headers:
            await response(self.scope, self.receive, self.send)
            return
        # A client that is still sending would meet a reset connection before it reads the answer. So the answer goes
        # out first, what still comes is thrown away for a moment, and then the connection is closed.
        await self.send({"type": "http.response.start", "status": 413, "headers": response.raw_headers})
        await self.send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
        await self._linger()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0:
                    message = await self.receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        elif self.is_head:
            message = {**message, "body": b""}
        await self._send(message)

    def _record(self) -> None:
        # Polling is most of what a service hears; its lines would bury the others.
        level = logging.DEBUG if self.scope["method"] == "GET" and self.status < 400 else logging.INFO
        path = self.scope.get("raw_path", b"").decode("ascii", "backslashreplace")
        _log.log(
            level,
            "%s %s %s",
            self.method,
            path,
            self.status,
            extra={"request_id": self.request_id, "ms": round(1000 * (time.perf_counter() - self.started_at), 1)},
        )
