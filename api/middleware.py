"""The middleware around routing: request id, guard, HEAD, size limit, last exception handler, access log. Plain ASGI,
so that streams are not buffered.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import error_response
from core.db.wait_budget import WaitBudget, use_wait_budget
from core.errors import TooLarge, Unavailable
from core.logs import log_context

MAX_BODY = 1024 * 1024  # bytes; a job has a few hundred
LINGER_BYTES = 64 * MAX_BODY
LINGER_SECONDS = 2.0
LATE_SECONDS = 0.2  # a wait in a thread ends this long before the request does

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
Observe = Callable[[Scope, int, float], None]
BodyLimit = Callable[[Scope, Headers], int]


class EdgeMiddleware:
    """The outermost middleware. Every request gets a response, and every response has a request id."""

    def __init__(
        self, app: ASGIApp, guard: Guard, observe: Observe, body_limit: BodyLimit, database_seconds: float
    ) -> None:
        """`guard` raises for requests that are refused before routing; `observe` is called after each request.

        `body_limit` is how many bytes the body of a request may announce. A request waits for the database for at most
        `database_seconds`.
        """
        self.app, self.guard, self.observe = app, guard, observe
        self.body_limit, self.database_seconds = body_limit, database_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = _RequestCycle(scope, receive, send, WaitBudget(self.database_seconds))
            with log_context(request_id=exchange.request_id), use_wait_budget(exchange.wait_budget):
                try:
                    await exchange.run(self.app, self.guard, self.body_limit)
                finally:
                    self.observe(exchange.scope, exchange.status, exchange.elapsed_seconds())
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


class _RequestCycle:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, wait_budget: WaitBudget) -> None:
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        self.is_head = scope["method"] == "HEAD"
        self.scope = {**scope, "basin.request_id": self.request_id, "basin.head": self.is_head}
        if self.is_head:  # every GET route answers HEAD: the same headers, no body
            self.scope["method"] = "GET"
        self.method = scope["method"]
        self._receive, self._send = receive, send
        self.wait_budget = wait_budget
        self.status = 0
        self.started_at = time.perf_counter()

    async def run(self, app: ASGIApp, guard: Guard, body_limit: BodyLimit) -> None:
        clock = _DatabaseTimer(self)
        try:
            await self._check_request(guard, body_limit(self.scope, self.headers))
            await app(self.scope, self.receive, self.send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # without the clock's ring: the process stops and its grace period is over
            if not self.status:
                reason = "The database did not answer in time" if clock.rang else "The service stops"
                await self._send_error(Unavailable(f"{reason}; try again shortly."))
        except Exception as error:
            if self.status:
                raise  # headers are sent: only a broken connection can still report the failure
            await self._send_error(error)
        finally:
            clock.stop()
            self._record_request()

    def elapsed_seconds(self) -> float:
        return time.perf_counter() - self.started_at

    async def _check_request(self, guard: Guard, most: int) -> None:
        await guard(self.headers)
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > most:
            raise TooLarge(f"The body is larger than {most} bytes.")

    async def _send_error(self, error: Exception) -> None:
        response = error_response(self.request_id, error)
        if response.status_code == 413:
            response.headers["Connection"] = "close"
        if response.status_code != 413 or self.is_head or "expect" in self.headers:
            await response(self.scope, self.receive, self.send)
            return
        # The response is sent first, then the rest of the body is discarded for a moment, then the connection closes.
        # Otherwise a client that is still sending meets a reset connection before it reads the response.
        await self.send({"type": "http.response.start", "status": 413, "headers": response.raw_headers})
        await self.send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
        await self._drain_body()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain_body(self) -> None:
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

    async def receive(self) -> Message:
        with self.wait_budget.pause_clock():
            return await self._receive()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.wait_budget.restart_per_wait()
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        elif self.is_head:
            message = {**message, "body": b""}
        await self._send(message)

    def _record_request(self) -> None:
        # Most requests are polls; their lines are kept out of the log at its usual level.
        level = logging.DEBUG if self.scope["method"] == "GET" and self.status < 400 else logging.INFO
        path = self.scope.get("raw_path", b"").decode("ascii", "backslashreplace")
        _log.log(
            level,
            "%s %s %s",
            self.method,
            path,
            self.status,
            extra={"request_id": self.request_id, "ms": round(1000 * self.elapsed_seconds(), 1)},
        )


class _DatabaseTimer:
    """Ends a request that has waited too long for the database: in a query, or for a thread while others query."""

    def __init__(self, exchange: _RequestCycle) -> None:
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._threads = to_thread.current_default_thread_limiter()
        self._timer = self._loop.call_later(exchange.wait_budget.remaining_seconds() + LATE_SECONDS, self._check_time)
        self.rang = False

    def stop(self) -> None:
        self._timer.cancel()
        if self.rang and self._task is not None:
            self._task.uncancel()

    def _check_time(self) -> None:
        left = self._exchange.wait_budget.remaining_seconds() + LATE_SECONDS
        if self._exchange.status or self._task is None:
            return
        if left > 0 or self._thread_is_busy():
            self._timer = self._loop.call_later(max(left, LATE_SECONDS), self._check_time)
        else:
            self.rang = True
            self._task.cancel()  # leaves the queue for a thread; a thread that it has runs until its own wait ends

    def _thread_is_busy(self) -> bool:
        """Whether the request has a thread that is not in a database query."""
        return not self._exchange.wait_budget.asking and self._task in self._threads.statistics().borrowers
